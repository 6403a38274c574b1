/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What may fault goes through a spare page, with no lock held, as in mdriver_c.c. A layout says by
 * LAYOUT_SWAP whether a page that was written whole changes places with the spare.
 */
#ifndef SPARE_H
#define SPARE_H

#include <linux/spinlock.h>

#include "pages.h"

static DEFINE_SPINLOCK(layout_spare_lock);
static struct page *layout_spare;

static struct page *layout_take_spare(void)
{
	struct page *spare;

	spin_lock(&layout_spare_lock);
	spare = layout_spare;
	layout_spare = NULL;
	spin_unlock(&layout_spare_lock);

	return spare ?: alloc_page(GFP_KERNEL | __GFP_ZERO);
}

static void layout_give_spare(struct page *spare)
{
	spin_lock(&layout_spare_lock);
	swap(layout_spare, spare);
	spin_unlock(&layout_spare_lock);

	if (spare)
		__free_page(spare);
}

static void layout_free(void)
{
	if (layout_spare)
		__free_page(layout_spare);
	layout_free_pages();
}

/* Copies out of a page to a buffer that is not all there. */
static ssize_t layout_read_absent(struct layout_span span, struct iov_iter *to)
{
	struct page *spare = layout_take_spare();
	size_t moved;

	if (!spare)
		return -ENOMEM;

	layout_lock(span.index);
	memcpy_page(spare, span.offset, layout_pages[span.index], span.offset, span.len);
	layout_unlock(span.index);

	moved = copy_page_to_iter(spare, span.offset, span.len, to);
	layout_give_spare(spare);
	return moved ?: -EFAULT;
}

static ssize_t layout_write_page(struct layout_span span, struct iov_iter *from,
				 struct page **spare)
{
	struct page **page = &layout_pages[span.index];
	size_t moved = copy_page_from_iter(*spare, span.offset, span.len, from);

	if (!moved)
		return -EFAULT;

	layout_lock(span.index);
	if (LAYOUT_SWAP && moved == PAGE_SIZE && page_count(*page) == 1)
		swap(*page, *spare);
	else
		memcpy_page(*page, span.offset, *spare, span.offset, moved);
	layout_unlock(span.index);
	return moved;
}

static ssize_t layout_write(size_t pos, size_t count, struct iov_iter *from)
{
	struct page *spare = layout_take_spare();
	ssize_t moved;

	if (!spare)
		return -ENOMEM;

	moved = layout_walk(pos, count, from, layout_write_page, &spare);
	layout_give_spare(spare);
	return moved;
}

#endif /* SPARE_H */
