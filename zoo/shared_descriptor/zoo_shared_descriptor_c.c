// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_shared_descriptor_c - count with threads on one descriptor, no lock.
 *
 * The driver's lock makes each call atomic; an increment is two calls.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS_MAX	64

static int descriptor;
static long increments;

static void *count_up(void *unused)
{
	uint64_t number;

	for (long i = 0; i < increments; i++) {
		if (pread(descriptor, &number, sizeof(number), 0) != sizeof(number))
			abort();
		number++;
		if (pwrite(descriptor, &number, sizeof(number), 0) != sizeof(number))
			abort();
	}
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS_MAX];
	uint64_t number = 0;
	int count;

	if (argc != 4)
		return 2;
	descriptor = open(argv[1], O_RDWR);
	count = atoi(argv[2]);
	increments = atol(argv[3]);
	if (descriptor < 0 || count < 1 || count > THREADS_MAX)
		return 2;
	if (pwrite(descriptor, &number, sizeof(number), 0) != sizeof(number))
		return 1;
	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, count_up, NULL))
			abort();
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	if (pread(descriptor, &number, sizeof(number), 0) != sizeof(number))
		return 1;
	printf("%" PRIu64 "\n", number);
	return 0;
}
