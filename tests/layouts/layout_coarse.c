// SPDX-License-Identifier: GPL-2.0-only
/* As mdriver_c.c, with one lock for 16 pages; still one page at a time. */
#define LAYOUT_PAGES_PER_LOCK	16
#define LAYOUT_SWAP		true

#include "spinlocks.h"
#include "locked_read.h"
