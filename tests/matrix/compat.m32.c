// SPDX-License-Identifier: GPL-2.0-only
/*
 * compat - a static 32-bit program that uses the device and says what came of each call.
 *
 * "compat.m32 DEVICE ioctl" and "compat.m32 DEVICE move" write one line for each call: its name, what
 * the kernel returned (an errno is negative), and the values that it stored, in hexadecimal.
 *
 * There is no library: the chroot's compiler makes 32-bit code and has no 32-bit libc.
 */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/fs.h>
#include <linux/mman.h>
#include <linux/uio.h>

#include "mdriver.h"

#define PAGE 4096
#define UNTOUCHED 0x5a5a5a5a5a5a5a5aULL

/* Outside the half of a 32-bit program; a 64-bit kernel must not take it for one of its own. */
#define BAD_ADDRESS 0xfffff000UL

/* A page that is there, one that cannot be written, one that cannot be touched. */
static char memory[3 * PAGE] __attribute__((aligned(PAGE)));
static char *const read_only = memory + PAGE;
static char *const forbidden = memory + 2 * PAGE;

static int device;

/* Starts at the first program's stack: the number of arguments, then their addresses. */
asm(".globl _start\n"
    "_start:\n"
    "	movl %esp, %eax\n"
    "	andl $-16, %esp\n"
    "	subl $12, %esp\n"
    "	pushl %eax\n"
    "	call run\n");

/* Source: Documentation/arch/x86/entry_64.rst, Linux 7.3: the 32-bit entry. */
static long call(long number, long first, long second, long third, long fourth, long fifth)
{
	long result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(number), "b"(first), "c"(second), "d"(third), "S"(fourth), "D"(fifth)
		     : "memory");
	return result;
}

static unsigned long length(const char *text)
{
	unsigned long count = 0;

	while (text[count])
		count++;
	return count;
}

static void say(const char *text)
{
	call(__NR_write, 1, (long)text, length(text), 0, 0);
}

static void say_number(long value)
{
	char digits[12];
	char *start = digits + sizeof(digits) - 1;
	unsigned long rest = value < 0 ? 0UL - (unsigned long)value : (unsigned long)value;

	*start = 0;
	do {
		*--start = '0' + rest % 10;
		rest /= 10;
	} while (rest);
	if (value < 0)
		*--start = '-';
	say(" ");
	say(start);
}

static void say_hex(__u64 value)
{
	char digits[19];
	char *start = digits + sizeof(digits) - 1;

	*start = 0;
	do {
		*--start = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value);
	*--start = 'x';
	*--start = '0';
	say(" ");
	say(start);
}

static void say_result(const char *name, long result)
{
	say(name);
	say_number(result);
	say("\n");
}

static long control(unsigned long command, const void *argument)
{
	return call(__NR_ioctl, device, command, (long)argument, 0, 0);
}

/* The argument is on the stack, above 2 GiB: an address that must not be extended with its sign. */
static void show_add(const char *name, __u64 offset, __u64 delta)
{
	struct mdriver_add add = { .offset = offset, .delta = delta, .before = UNTOUCHED };
	long result = control(MDRIVER_IOC_ADD, &add);

	say(name);
	say_number(result);
	say_hex(add.offset);
	say_hex(add.delta);
	say_hex(add.before);
	say("\n");
}

static void show_size(void)
{
	__u64 around[3] = { UNTOUCHED, UNTOUCHED, UNTOUCHED };
	long result = control(MDRIVER_IOC_SIZE, &around[1]);

	say("SIZE");
	say_number(result);
	for (int i = 0; i < 3; i++)
		say_hex(around[i]);
	say("\n");
}

static void show_add_without_answer(void)
{
	struct mdriver_add *add = (struct mdriver_add *)read_only;

	*add = (struct mdriver_add){ .offset = 8, .delta = 5, .before = UNTOUCHED };
	call(__NR_mprotect, (long)read_only, PAGE, PROT_READ, 0, 0);
	say_result("ADD without a place for the answer", control(MDRIVER_IOC_ADD, add));
	show_add("ADD after it", 8, 0);
}

static void show_ioctl(void)
{
	char here;

	say("numbers");
	say_hex(MDRIVER_IOC_SIZE);
	say_hex(MDRIVER_IOC_CLEAR);
	say_hex(MDRIVER_IOC_ADD);
	say_number(sizeof(struct mdriver_add));
	say_number((unsigned long)&here >> 31);
	say("\n");

	show_size();
	say_result("SIZE to nowhere", control(MDRIVER_IOC_SIZE, 0));
	say_result("SIZE to a bad address", control(MDRIVER_IOC_SIZE, (void *)BAD_ADDRESS));
	say_result("SIZE to what is not writable", control(MDRIVER_IOC_SIZE, forbidden));

	show_add("ADD", 8, 0xfedcba9876543210ULL);
	show_add("ADD again", 8, 0x0123456789abcdf0ULL);
	show_add("ADD between two numbers", 12, 1);
	show_add("ADD beyond 4 GiB", (1ULL << 32) + 8, 1);
	show_add("ADD before the start", -8ULL, 1);
	say_result("ADD from nowhere", control(MDRIVER_IOC_ADD, 0));
	say_result("ADD from a bad address", control(MDRIVER_IOC_ADD, (void *)BAD_ADDRESS));
	say_result("ADD from a part", control(MDRIVER_IOC_ADD, forbidden - 16));
	show_add_without_answer();

	say_result("another driver's", control(_IOR('T', 0, __u64), memory));
	say_result("SIZE of 4 bytes", control(_IOR(MDRIVER_IOC_MAGIC, 0, __u32), memory));
	say_result("CLEAR", control(MDRIVER_IOC_CLEAR, (void *)BAD_ADDRESS));
	show_add("ADD at last", 16, 0x4567);
}

static long seek(long high, unsigned long low, long whence, __u64 *position)
{
	return call(__NR__llseek, device, high, low, (long)position, whence);
}

static void show_seek(const char *name, long high, unsigned long low, long whence)
{
	__u64 position = UNTOUCHED;
	long result = seek(high, low, whence, &position);

	say(name);
	say_number(result);
	say_hex(position);
	say("\n");
}

static void show_move(void)
{
	char text[] = "thirty-two";
	struct iovec pieces[] = { { memory, 3 }, { memory + 100, 4 } };

	say_result("lseek", call(__NR_lseek, device, PAGE - 4, SEEK_SET, 0, 0));
	say_result("write", call(__NR_write, device, (long)text, 10, 0, 0));
	say_result("lseek to here", call(__NR_lseek, device, 0, SEEK_CUR, 0, 0));
	show_seek("llseek to the end", 0, 0, SEEK_END);
	show_seek("llseek beyond 4 GiB", 1, 0, SEEK_SET);
	say_result("read at the end", call(__NR_read, device, (long)memory, 9, 0, 0));
	say_result("write at the end", call(__NR_write, device, (long)text, 9, 0, 0));

	say_result("pread64", call(__NR_pread64, device, (long)memory, 6, PAGE - 4, 0));
	say(memory);
	say("\n");
	say_result("pread64 beyond 4 GiB", call(__NR_pread64, device, (long)memory, 6, PAGE, 1));
	say_result("pwrite64 beyond 4 GiB", call(__NR_pwrite64, device, (long)text, 6, PAGE, 1));
	say_result("pwrite64", call(__NR_pwrite64, device, (long)text, 6, 2 * PAGE - 3, 0));

	say_result("lseek back", call(__NR_lseek, device, PAGE - 4, SEEK_SET, 0, 0));
	say_result("readv", call(__NR_readv, device, (long)pieces, 2, 0, 0));
	say(memory + 100);
	say("\n");
	say_result("read to a bad address", call(__NR_read, device, BAD_ADDRESS, 9, 0, 0));
	say_result("read to a part", call(__NR_read, device, (long)forbidden - 5, 9, 0, 0));
	say_result("write from a bad address", call(__NR_write, device, BAD_ADDRESS, 9, 0, 0));
	say_result("lseek to here", call(__NR_lseek, device, 0, SEEK_CUR, 0, 0));
}

__attribute__((noreturn, used)) static void run(const char *const *stack)
{
	const char *path = stack[2];
	const char *part = stack[3];

	device = call(__NR_open, (long)path, O_RDWR, 0, 0, 0);
	say_result("open", device < 0 ? device : 0);
	call(__NR_mprotect, (long)forbidden, PAGE, PROT_NONE, 0, 0);
	if (part[0] == 'i')
		show_ioctl();
	else
		show_move();
	call(__NR_exit, 0, 0, 0, 0, 0);
	__builtin_unreachable();
}
