// SPDX-License-Identifier: GPL-2.0-only
/* The door to the kernel; sys.h tells its rules. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Only open(2) with O_CREAT or O_TMPFILE reads it. */
#define CREATE_MODE 0600

#define NS_PER_S 1000000000
#define US_PER_S 1e6

static int64_t result_or_errno(int64_t result)
{
	return result < 0 ? -errno : result;
}

int64_t sys_open(const char *path, int flags)
{
	return result_or_errno(open(path, flags | O_CLOEXEC, CREATE_MODE));
}

/* What it says is of no use: the descriptor is gone, whatever it is. */
void sys_close(int fd)
{
	close(fd);
}

int64_t sys_transfer(int fd, const struct transfer *request)
{
	void *address = (void *)request->address;
	size_t size = request->size;
	ssize_t moved;

	if (request->write && request->at)
		moved = pwrite(fd, address, size, request->offset);
	else if (request->write)
		moved = write(fd, address, size);
	else if (request->at)
		moved = pread(fd, address, size, request->offset);
	else
		moved = read(fd, address, size);
	return result_or_errno(moved);
}

int64_t sys_lseek(int fd, off_t offset, int whence)
{
	return result_or_errno(lseek(fd, offset, whence));
}

int64_t sys_ioctl(int fd, unsigned long request, uintptr_t argument)
{
	return result_or_errno(ioctl(fd, request, argument));
}

/* It fails only for a bad clock or address. */
int64_t sys_clock_ns(void)
{
	struct timespec now = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static double seconds(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / US_PER_S;
}

struct process_times sys_process_times(void)
{
	struct rusage usage;

	/* It fails only for a bad address or selector. */
	getrusage(RUSAGE_SELF, &usage);
	return (struct process_times){
		.user_s = seconds(usage.ru_utime),
		.system_s = seconds(usage.ru_stime),
	};
}

/*
 * Memory that reads as zero and that the kernel may not have provided yet; free() gives it back.
 * NULL when there is none. Asking for no bytes gives an address all the same.
 */
void *sys_zeroed(size_t size)
{
	return calloc(size ? size : 1, 1);
}
