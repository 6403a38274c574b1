/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The memory as one buffer. A layout has its locks before it includes this: layout_init_locks(),
 * and layout_lock() and layout_unlock() for the index of a page.
 */
#ifndef BUFFER_H
#define BUFFER_H

#include <linux/string.h>
#include <linux/vmalloc.h>

#include "layout.h"

static char *layout_buffer;

static int layout_alloc(void)
{
	layout_init_locks();
	layout_buffer = vmalloc_user(LAYOUT_SIZE);
	return layout_buffer ? 0 : -ENOMEM;
}

static void layout_free(void)
{
	vfree(layout_buffer);
}

static void layout_clear(size_t index)
{
	layout_lock(index);
	memset(layout_buffer + (index << PAGE_SHIFT), 0, PAGE_SIZE);
	layout_unlock(index);
}

static u64 layout_add(size_t pos, u64 delta)
{
	u64 *number = (u64 *)(layout_buffer + pos);
	u64 before;

	layout_lock(pos >> PAGE_SHIFT);
	before = READ_ONCE(*number);
	WRITE_ONCE(*number, before + delta);
	layout_unlock(pos >> PAGE_SHIFT);
	return before;
}

static int layout_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_vmalloc_range(vma, layout_buffer, vma->vm_pgoff);
}

#endif /* BUFFER_H */
