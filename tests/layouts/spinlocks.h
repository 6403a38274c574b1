/* SPDX-License-Identifier: GPL-2.0-only */
/* A spinlock for every LAYOUT_PAGES_PER_LOCK pages. */
#ifndef SPINLOCKS_H
#define SPINLOCKS_H

#include <linux/spinlock.h>

#include "layout.h"

static spinlock_t layout_locks[LAYOUT_PAGES / LAYOUT_PAGES_PER_LOCK];

static void layout_init_locks(void)
{
	for (size_t number = 0; number < ARRAY_SIZE(layout_locks); number++)
		spin_lock_init(&layout_locks[number]);
}

static inline void layout_lock(size_t index)
{
	spin_lock(&layout_locks[index / LAYOUT_PAGES_PER_LOCK]);
}

static inline void layout_unlock(size_t index)
{
	spin_unlock(&layout_locks[index / LAYOUT_PAGES_PER_LOCK]);
}

#endif /* SPINLOCKS_H */
