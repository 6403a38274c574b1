// SPDX-License-Identifier: GPL-2.0-only
/*
 * One buffer, one mutex, and no fault under it: the pages of the caller are brought in first, and
 * the copy stops at one that has gone again, or that the way there did not reach.
 */
#include "mutex.h"
#include "buffer.h"

static ssize_t layout_read(size_t pos, size_t count, struct iov_iter *to)
{
	size_t done = 0;

	do {
		if (fault_in_iov_iter_writeable(to, count - done) == count - done)
			break;
		layout_lock(pos >> PAGE_SHIFT);
		pagefault_disable();
		done += copy_to_iter(layout_buffer + pos + done, count - done, to);
		pagefault_enable();
		layout_unlock(pos >> PAGE_SHIFT);
	} while (done < count && !layout_killed());

	return done ?: -EFAULT;
}

static ssize_t layout_write(size_t pos, size_t count, struct iov_iter *from)
{
	size_t done = 0;

	do {
		if (fault_in_iov_iter_readable(from, count - done) == count - done)
			break;
		layout_lock(pos >> PAGE_SHIFT);
		pagefault_disable();
		done += copy_from_iter(layout_buffer + pos + done, count - done, from);
		pagefault_enable();
		layout_unlock(pos >> PAGE_SHIFT);
	} while (done < count && !layout_killed());

	return done ?: -EFAULT;
}
