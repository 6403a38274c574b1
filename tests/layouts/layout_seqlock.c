// SPDX-License-Identifier: GPL-2.0-only
/*
 * A sequence lock per page: a read takes none, and copies again under the lock if a write came
 * between. A page that a reader may be looking at cannot change places, so all that is written is
 * copied twice.
 */
#define LAYOUT_SWAP	false

#include <linux/seqlock.h>

#include "layout.h"

static seqlock_t layout_locks[LAYOUT_PAGES];

static void layout_init_locks(void)
{
	for (size_t index = 0; index < LAYOUT_PAGES; index++)
		seqlock_init(&layout_locks[index]);
}

static inline void layout_lock(size_t index)
{
	write_seqlock(&layout_locks[index]);
}

static inline void layout_unlock(size_t index)
{
	write_sequnlock(&layout_locks[index]);
}

#include "spare.h"

static ssize_t layout_read_page(struct layout_span span, struct iov_iter *to, struct page **spare)
{
	unsigned int before = read_seqbegin(&layout_locks[span.index]);
	size_t moved;

	moved = layout_copy_nofault(span.index, span.offset, span.len, to);
	if (likely(moved == span.len && !read_seqretry(&layout_locks[span.index], before)))
		return moved;
	iov_iter_revert(to, moved);
	return layout_read_absent(span, to);
}

static ssize_t layout_read(size_t pos, size_t count, struct iov_iter *to)
{
	return layout_walk(pos, count, to, layout_read_page, NULL);
}
