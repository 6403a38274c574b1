// SPDX-License-Identifier: GPL-2.0-only
/* Many equal calls with next to nothing between them; repeat.h tells the rest. */
#include "repeat.h"

#include <string.h>

#include <mdriver.h>

bool repeat_operation_of(const char *name, struct repeat_run *run)
{
	run->add = strcmp(name, "add") == 0;
	run->request.at = name[0] == 'p';
	run->request.write = strcmp(name, "write") == 0 || strcmp(name, "pwrite") == 0;
	return run->add || run->request.write || strcmp(name, "read") == 0 ||
	       strcmp(name, "pread") == 0;
}

static int64_t call_once(int fd, const struct repeat_run *run)
{
	struct mdriver_add add = { .offset = (uint64_t)run->request.offset, .delta = 1 };

	if (run->add)
		return sys_ioctl(fd, MDRIVER_IOC_ADD, (uintptr_t)&add);
	return sys_transfer(fd, &run->request);
}

/*
 * Make the calls that are left. Returns what the last call moved, or -errno; a result that is not
 * the size ended the run.
 */
int64_t repeat_run_calls(int fd, void *arguments)
{
	struct repeat_run *run = arguments;
	int64_t moved = (int64_t)run->request.size;

	while (run->done < run->calls && moved == (int64_t)run->request.size) {
		moved = call_once(fd, run);
		if (moved < 0)
			return moved;
		run->request.address += run->stride;
		run->done++;
	}
	return moved;
}

/* Open and close as often as is left. Returns 0, or -errno. */
int64_t repeat_open_calls(int fd, void *arguments)
{
	struct repeat_open_run *run = arguments;

	(void)fd;
	while (run->done < run->calls) {
		int64_t opened = sys_open(run->path, run->flags);

		if (opened < 0)
			return opened;
		sys_close((int)opened);
		run->done++;
	}
	return 0;
}
