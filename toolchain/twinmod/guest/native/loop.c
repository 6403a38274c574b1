// SPDX-License-Identifier: GPL-2.0-only
/*
 * A loop that allocates a buffer, reads into it and writes from it, and
 * times both calls. It runs alone in a process: an allocator that was once given back a large block
 * keeps the next ones.
 *
 *	loop PATH fresh|reused BYTES PASSES
 *
 * Writes a line for each pass: nanoseconds and minor page faults of the read, then of the write.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct taken {
	long ns;
	long faults;
};

static long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static long minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static struct taken timed(int fd, int writing, void *buffer, size_t size)
{
	struct taken taken = { .faults = minor_faults() };
	long begin_ns = now_ns();
	ssize_t moved = writing ? pwrite(fd, buffer, size, 0) : pread(fd, buffer, size, 0);

	taken.ns = now_ns() - begin_ns;
	taken.faults = minor_faults() - taken.faults;
	if (moved != (ssize_t)size)
		exit(1);
	return taken;
}

int main(int argc, char **argv)
{
	size_t size = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
	int fd = argc == 5 ? open(argv[1], O_RDWR) : -1;
	void *reused = NULL;

	if (fd < 0)
		return 2;
	/* What printf() allocates is there before the first pass. */
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	if (strcmp(argv[2], "reused") == 0)
		reused = memset(malloc(size), 0x5a, size);
	for (long i = 0; i < atol(argv[4]); i++) {
		void *buffer = reused ? reused : calloc(1, size);
		struct taken read = timed(fd, 0, buffer, size);
		struct taken write = timed(fd, 1, buffer, size);

		if (!reused)
			free(buffer);
		printf("%ld %ld %ld %ld\n", read.ns, read.faults, write.ns, write.faults);
	}
	return 0;
}
