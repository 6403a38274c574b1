// SPDX-License-Identifier: GPL-2.0-only
/*
 * A lock per page and no spare page: the bytes are copied where they belong, with faults off, as
 * far as that goes. Then what is absent is brought in, with no lock held, and the rest is copied.
 */
#define LAYOUT_PAGES_PER_LOCK	1

#include "spinlocks.h"
#include "pages.h"

static ssize_t layout_read_page(struct layout_span span, struct iov_iter *to, struct page **spare)
{
	size_t done = 0;

	do {
		layout_lock(span.index);
		done += layout_copy_nofault(span.index, span.offset + done, span.len - done, to);
		layout_unlock(span.index);
	} while (done < span.len && !layout_killed() &&
		 fault_in_iov_iter_writeable(to, span.len - done) < span.len - done);

	return done ?: -EFAULT;
}

static ssize_t layout_write_page(struct layout_span span, struct iov_iter *from,
				 struct page **spare)
{
	struct folio *folio = page_folio(layout_pages[span.index]);
	size_t done = 0;

	do {
		layout_lock(span.index);
		done += copy_folio_from_iter_atomic(folio, span.offset + done, span.len - done,
						    from);
		layout_unlock(span.index);
	} while (done < span.len && !layout_killed() &&
		 fault_in_iov_iter_readable(from, span.len - done) < span.len - done);

	return done ?: -EFAULT;
}

static ssize_t layout_read(size_t pos, size_t count, struct iov_iter *to)
{
	return layout_walk(pos, count, to, layout_read_page, NULL);
}

static ssize_t layout_write(size_t pos, size_t count, struct iov_iter *from)
{
	return layout_walk(pos, count, from, layout_write_page, NULL);
}

static void layout_free(void)
{
	layout_free_pages();
}
