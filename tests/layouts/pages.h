/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The memory as an array of single pages, and a call as one step per page. A layout has its locks
 * before it includes this: layout_init_locks(), and layout_lock() and layout_unlock() for the index
 * of a page.
 */
#ifndef PAGES_H
#define PAGES_H

#include <linux/gfp.h>
#include <linux/highmem.h>

#include "layout.h"

static struct page *layout_pages[LAYOUT_PAGES];

/* Copies out of a page without a fault, as far as that goes. */
static inline size_t layout_copy_nofault(size_t index, size_t offset, size_t len,
					 struct iov_iter *to)
{
	size_t moved;

	pagefault_disable();
	moved = copy_page_to_iter(layout_pages[index], offset, len, to);
	pagefault_enable();
	return moved;
}

/**
 * struct layout_span - the part of a request that lies in one page
 * @index: which page.
 * @offset: where in the page.
 * @len: number of bytes, at least 1.
 */
struct layout_span {
	size_t index;
	size_t offset;
	size_t len;
};

/* Moves bytes between a page and the caller, by way of a spare page if there is one. */
typedef ssize_t (*layout_move)(struct layout_span span, struct iov_iter *iter, struct page **spare);

static __always_inline ssize_t layout_walk(size_t pos, size_t count, struct iov_iter *iter,
					   layout_move move, struct page **spare)
{
	struct layout_span span;
	size_t done = 0;
	ssize_t moved;

	do {
		span.index = (pos + done) >> PAGE_SHIFT;
		span.offset = offset_in_page(pos + done);
		span.len = min(count - done, PAGE_SIZE - span.offset);
		moved = move(span, iter, spare);
		if (moved < 0)
			break;
		done += moved;
	} while (moved == span.len && done < count && !layout_killed_at(span.index));

	return done ?: moved;
}

static void layout_clear(size_t index)
{
	layout_lock(index);
	clear_highpage(layout_pages[index]);
	layout_unlock(index);
}

static u64 layout_add(size_t pos, u64 delta)
{
	size_t index = pos >> PAGE_SHIFT;
	void *address;
	u64 *number;
	u64 before;

	layout_lock(index);
	address = kmap_local_page(layout_pages[index]);
	number = address + offset_in_page(pos);
	before = READ_ONCE(*number);
	WRITE_ONCE(*number, before + delta);
	kunmap_local(address);
	layout_unlock(index);
	return before;
}

static vm_fault_t layout_fault(struct vm_fault *vmf)
{
	if (vmf->pgoff >= LAYOUT_PAGES)
		return VM_FAULT_SIGBUS;

	layout_lock(vmf->pgoff);
	vmf->page = layout_pages[vmf->pgoff];
	get_page(vmf->page);
	layout_unlock(vmf->pgoff);
	return 0;
}

static const struct vm_operations_struct layout_vm_ops = {
	.fault	= layout_fault,
};

static int layout_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (vma->vm_pgoff > LAYOUT_PAGES || vma_pages(vma) > LAYOUT_PAGES - vma->vm_pgoff)
		return -EINVAL;

	vm_flags_set(vma, VM_DONTEXPAND);
	vma->vm_ops = &layout_vm_ops;
	return 0;
}

static void layout_free_pages(void)
{
	for (size_t index = 0; index < LAYOUT_PAGES && layout_pages[index]; index++)
		__free_page(layout_pages[index]);
}

static int layout_alloc(void)
{
	layout_init_locks();
	for (size_t index = 0; index < LAYOUT_PAGES; index++) {
		layout_pages[index] = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!layout_pages[index]) {
			layout_free_pages();
			return -ENOMEM;
		}
	}
	return 0;
}

#endif /* PAGES_H */
