// SPDX-License-Identifier: GPL-2.0-only
/* As mdriver_c.c, but no page changes places: every byte that is written is copied twice. */
#define LAYOUT_PAGES_PER_LOCK	1
#define LAYOUT_SWAP		false

#include "spinlocks.h"
#include "locked_read.h"
