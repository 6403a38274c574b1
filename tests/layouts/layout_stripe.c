// SPDX-License-Identifier: GPL-2.0-only
/*
 * One buffer, with a spinlock for every 16 pages, which is held for one copy of up to all 16, with
 * faults off. Then what is absent is brought in, with no lock held, and the rest is copied.
 */
#define LAYOUT_PAGES_PER_LOCK	16

#include "spinlocks.h"
#include "buffer.h"

#define LAYOUT_STRIPE	(LAYOUT_PAGES_PER_LOCK * PAGE_SIZE)

static size_t layout_part(size_t pos, size_t left)
{
	return min(left, LAYOUT_STRIPE - pos % LAYOUT_STRIPE);
}

static ssize_t layout_read(size_t pos, size_t count, struct iov_iter *to)
{
	size_t done = 0, part, moved;

	do {
		part = layout_part(pos + done, count - done);
		layout_lock((pos + done) >> PAGE_SHIFT);
		pagefault_disable();
		moved = copy_to_iter(layout_buffer + pos + done, part, to);
		pagefault_enable();
		layout_unlock((pos + done) >> PAGE_SHIFT);

		done += moved;
		part -= moved;
		if (part && fault_in_iov_iter_writeable(to, part) == part)
			break;
	} while (done < count && !layout_killed());

	return done ?: -EFAULT;
}

static ssize_t layout_write(size_t pos, size_t count, struct iov_iter *from)
{
	size_t done = 0, part, moved;

	do {
		part = layout_part(pos + done, count - done);
		layout_lock((pos + done) >> PAGE_SHIFT);
		pagefault_disable();
		moved = copy_from_iter(layout_buffer + pos + done, part, from);
		pagefault_enable();
		layout_unlock((pos + done) >> PAGE_SHIFT);

		done += moved;
		part -= moved;
		if (part && fault_in_iov_iter_readable(from, part) == part)
			break;
	} while (done < count && !layout_killed());

	return done ?: -EFAULT;
}
