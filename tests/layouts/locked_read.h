/* SPDX-License-Identifier: GPL-2.0-only */
/* A read copies from a page under its lock, with faults off; once more if a part is absent. */
#ifndef LOCKED_READ_H
#define LOCKED_READ_H

#include "spare.h"

static ssize_t layout_read_page(struct layout_span span, struct iov_iter *to, struct page **spare)
{
	size_t moved;

	layout_lock(span.index);
	moved = layout_copy_nofault(span.index, span.offset, span.len, to);
	layout_unlock(span.index);

	if (likely(moved == span.len))
		return moved;
	iov_iter_revert(to, moved);
	return layout_read_absent(span, to);
}

static ssize_t layout_read(size_t pos, size_t count, struct iov_iter *to)
{
	return layout_walk(pos, count, to, layout_read_page, NULL);
}

#endif /* LOCKED_READ_H */
