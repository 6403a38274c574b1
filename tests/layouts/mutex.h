/* SPDX-License-Identifier: GPL-2.0-only */
/* One mutex for all pages. */
#ifndef MUTEX_H
#define MUTEX_H

#include <linux/mutex.h>

#include "layout.h"

static DEFINE_MUTEX(layout_mutex);

static void layout_init_locks(void)
{
}

static inline void layout_lock(size_t index)
{
	mutex_lock(&layout_mutex);
}

static inline void layout_unlock(size_t index)
{
	mutex_unlock(&layout_mutex);
}

#endif /* MUTEX_H */
