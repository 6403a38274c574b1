// SPDX-License-Identifier: GPL-2.0-only
/*
 * The obvious code: one buffer, and one mutex that is held while the kernel copies to or from the
 * caller, and waits for a page of the caller's if one is absent.
 */
#include "mutex.h"
#include "buffer.h"

static ssize_t layout_read(size_t pos, size_t count, struct iov_iter *to)
{
	size_t moved;

	layout_lock(pos >> PAGE_SHIFT);
	moved = copy_to_iter(layout_buffer + pos, count, to);
	layout_unlock(pos >> PAGE_SHIFT);
	return moved ?: -EFAULT;
}

static ssize_t layout_write(size_t pos, size_t count, struct iov_iter *from)
{
	size_t moved;

	layout_lock(pos >> PAGE_SHIFT);
	moved = copy_from_iter(layout_buffer + pos, count, from);
	layout_unlock(pos >> PAGE_SHIFT);
	return moved ?: -EFAULT;
}
