// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin of QEMU that counts how often each instruction of the guest is executed, and writes down,
 * from one magic instruction to the next, how many instructions each function of the kernel took.
 *
 * From an even one to the odd one after it, what counts is the thread that executed it. What
 * interrupts that come meanwhile, and other threads, execute is counted apart, as one number: how
 * often a timer ticks says nothing of a call.
 *
 * Argument: out=PATH, what it writes.
 *
 * It writes, a line each:
 *	symbols				the symbols were read; the numbers begin anew
 *	name NUMBER NAME [MODULE]	a function that is counted for the first time
 *	magic NUMBER USER ELSEWHERE	a magic one; USER instructions in user space since the last,
 *					and what was executed by others
 *	NUMBER INSTRUCTIONS		what a function took since the one before
 *	lost NUMBER			instructions too many to be told apart: the rest is wrong
 *
 * One processor: a guest whose instructions are counted has no more.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "magic.h"
#include "plugin.h"

/* -- the kernel's functions ------------------------------------------------------------------ */

struct symbol {
	uint64_t address;
	char *name;
	uint64_t count;
	unsigned int number;	/* as it was written down; 0: not yet */
};

static FILE *out;
static struct symbol *symbols;
static size_t symbols_length;
static unsigned int names;	/* how many were written down */
static unsigned int executed;	/* since the symbols were read */
static unsigned int generation;	/* of the symbols; a slot's is of another when it is out of date */

static int compare_symbols(const void *left, const void *right)
{
	uint64_t a = ((const struct symbol *)left)->address;
	uint64_t b = ((const struct symbol *)right)->address;

	return (a > b) - (a < b);
}

static void forget_symbols(void)
{
	for (size_t i = 0; i < symbols_length; i++)
		free(symbols[i].name);
	free(symbols);
	symbols = NULL;
	symbols_length = 0;
	generation++;
}

/* Keep a line of /proc/kallsyms that is code: "ADDRESS t NAME\t[MODULE]", without its end. */
static void keep_symbol(char *line, size_t *room)
{
	char *end, *name;
	uint64_t address = strtoull(line, &end, 16);

	if (end == line || !strchr("tTwW", end[1]))
		return;
	name = end + 3;
	end = strchr(name, '\t');
	if (end)
		*end = ' ';
	if (symbols_length == *room) {
		*room = *room ? 2 * *room : 1 << 16;
		symbols = realloc(symbols, *room * sizeof(*symbols));
	}
	symbols[symbols_length++] = (struct symbol){ .address = address, .name = strdup(name) };
}

/* Keep the lines of a text; each ends with a line feed, which is no part of it any more then. */
static void keep_symbols(char *text, size_t length)
{
	char *line = text, *end = text + length, *feed;
	size_t room = 0;

	while ((feed = memchr(line, '\n', end - line))) {
		*feed = '\0';
		keep_symbol(line, &room);
		line = feed + 1;
	}
}

/* Read the symbols from the guest's memory. */
static void read_symbols(uint64_t address, uint64_t length)
{
	GByteArray *bytes = g_byte_array_new();

	executed = 0;
	fprintf(out, "symbols\n");
	forget_symbols();
	if (qemu_plugin_read_memory_vaddr(address, bytes, length))
		keep_symbols((char *)bytes->data, bytes->len);
	g_byte_array_free(bytes, 1);
	qsort(symbols, symbols_length, sizeof(*symbols), compare_symbols);
}

/* The last symbol at an address or before it, -1 for none. */
static long find_symbol(uint64_t address)
{
	size_t low = 0, high = symbols_length;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (symbols[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return (long)low - 1;
}

/* -- counters -------------------------------------------------------------------------------- */

/* A booted kernel has executed some 400,000 different instructions, Linux 7.3. */
#define SLOTS (1U << 22)
#define BUCKETS (1U << 20)

struct slot {
	uint64_t address;
	uint32_t next;		/* in its bucket; 0 ends it */
	uint32_t generation;
	long symbol;
};

/* Slot 0 is all of user space. */
static struct slot slots[SLOTS];
static uint32_t buckets[BUCKETS];
static uint32_t slots_length = 1;
static uint64_t lost;
static struct qemu_plugin_scoreboard *counters;

static uint32_t slot_of(uint64_t address)
{
	uint32_t bucket = (uint32_t)((address * 0x9e3779b97f4a7c15ULL) >> 44), slot;

	/* The kernel has the upper half of the addresses. */
	if (!(address >> 63))
		return 0;
	for (slot = buckets[bucket]; slot; slot = slots[slot].next)
		if (slots[slot].address == address)
			return slot;
	if (slots_length == SLOTS) {
		lost++;
		return 0;
	}
	slot = slots_length++;
	slots[slot] = (struct slot){ .address = address, .next = buckets[bucket] };
	buckets[bucket] = slot;
	return slot;
}

/* Add up the slots by function. Instructions before the first symbol are nobody's. */
static void add_counts(const uint64_t *counts)
{
	for (uint32_t i = 1; i < slots_length; i++) {
		if (!counts[i])
			continue;
		if (slots[i].generation != generation) {
			slots[i].generation = generation;
			slots[i].symbol = find_symbol(slots[i].address);
		}
		if (slots[i].symbol >= 0)
			symbols[slots[i].symbol].count += counts[i];
	}
}

static void write_counts(void)
{
	for (size_t i = 0; i < symbols_length; i++) {
		struct symbol *symbol = &symbols[i];

		if (!symbol->count)
			continue;
		if (!symbol->number) {
			symbol->number = ++names;
			fprintf(out, "name %u %s\n", symbol->number, symbol->name);
		}
		fprintf(out, "%u %llu\n", symbol->number, (unsigned long long)symbol->count);
		symbol->count = 0;
	}
}

/* -- whose instructions they are ------------------------------------------------------------- */

/* What the thread was at when it lost the processor. */
static uint64_t kept[SLOTS];
static uint32_t kept_length;
static uint64_t elsewhere;

static unsigned int interrupts;	/* that came over the thread, one within the other */
static bool away;		/* another thread runs */
static bool known;		/* which task the thread is */
static uint64_t task;

/* rdi and rsi, which have the first arguments of a function. */
static struct qemu_plugin_register *first_register, *second_register;

static bool is_segment_open(void)
{
	return executed % 2;
}

static bool is_elsewhere(void)
{
	return away || interrupts;
}

static void begin_thread(void)
{
	elsewhere = 0;
	interrupts = 0;
	away = false;
	known = false;
}

/* Keep what the thread has executed, before others execute something. */
static void leave_thread(unsigned int vcpu)
{
	const uint64_t *counts = qemu_plugin_scoreboard_find(counters, vcpu);

	kept_length = slots_length;
	memcpy(kept, counts, kept_length * sizeof(*kept));
}

/* Take off what others have executed. */
static void return_to_thread(unsigned int vcpu)
{
	uint64_t *counts = qemu_plugin_scoreboard_find(counters, vcpu);

	for (uint32_t i = 0; i < slots_length; i++) {
		uint64_t own = i < kept_length ? kept[i] : 0;

		elsewhere += counts[i] - own;
		counts[i] = own;
	}
}

static void on_interrupt(unsigned int vcpu, void *data)
{
	(void)data;
	if (!is_segment_open() || away)
		return;
	if (!interrupts++)
		leave_thread(vcpu);
}

/* A fault ends as an interrupt does, and is the thread's own unless it is in an interrupt. */
static void on_fault(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	if (is_segment_open() && !away && interrupts)
		interrupts++;
}

static void on_interrupt_end(unsigned int vcpu, void *data)
{
	(void)data;
	if (!is_segment_open() || away || !interrupts)
		return;
	if (!--interrupts)
		return_to_thread(vcpu);
}

static uint64_t read_register(struct qemu_plugin_register *handle)
{
	static GByteArray *bytes;
	uint64_t value = 0;

	if (!bytes)
		bytes = g_byte_array_new();
	g_byte_array_set_size(bytes, 0);
	if (qemu_plugin_read_register(handle, bytes) == sizeof(value))
		memcpy(&value, bytes->data, sizeof(value));
	return value;
}

/* __switch_to_asm(prev, next) */
static void on_switch(unsigned int vcpu, void *data)
{
	(void)data;
	if (!is_segment_open())
		return;
	if (away) {
		away = read_register(second_register) != task;
		if (!is_elsewhere())
			return_to_thread(vcpu);
		return;
	}
	if (!known)
		task = read_register(first_register);
	known = true;
	if (!is_elsewhere())
		leave_thread(vcpu);
	away = true;
}

static void on_magic(unsigned int vcpu, void *data)
{
	uint64_t *counts = qemu_plugin_scoreboard_find(counters, vcpu);

	(void)data;
	fprintf(out, "magic %u %llu %llu\n", executed++, (unsigned long long)counts[0],
		(unsigned long long)elsewhere);
	begin_thread();
	add_counts(counts);
	write_counts();
	memset(counts, 0, slots_length * sizeof(*counts));
}

static qemu_plugin_id_t plugin;

static void watch(qemu_plugin_id_t id);

/* What was translated before its function had a name is translated again. */
static void on_symbols(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	read_symbols(read_register(first_register), read_register(second_register));
	qemu_plugin_reset(plugin, watch);
}

/* -- translation ----------------------------------------------------------------------------- */

static bool is_magic(const struct qemu_plugin_insn *insn, const char *name)
{
	char bytes[MAGIC_BYTES];

	return qemu_plugin_insn_size(insn) == MAGIC_BYTES &&
	       qemu_plugin_insn_data(insn, bytes, MAGIC_BYTES) == MAGIC_BYTES &&
	       memcmp(bytes, MAGIC_OPCODE, 3) == 0 && memcmp(bytes + 3, name, 4) == 0;
}

static bool is_interrupt_return(const struct qemu_plugin_insn *insn)
{
	unsigned char bytes[2];

	return qemu_plugin_insn_size(insn) == sizeof(bytes) &&
	       qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(bytes) &&
	       memcmp(bytes, "\x48\xcf", sizeof(bytes)) == 0;
}

static bool begins(const char *name, const char *head)
{
	return strncmp(name, head, strlen(head)) == 0;
}

/* Watch where the kernel begins something else, at the first instruction of a function. */
static void watch_entry(struct qemu_plugin_insn *insn, uint64_t address)
{
	long symbol = find_symbol(address);
	const char *name;

	if (symbol < 0 || symbols[symbol].address != address)
		return;
	name = symbols[symbol].name;
	if (begins(name, "asm_sysvec_") || strcmp(name, "asm_common_interrupt") == 0)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_interrupt, QEMU_PLUGIN_CB_NO_REGS,
						       NULL);
	else if (begins(name, "asm_exc_"))
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_fault, QEMU_PLUGIN_CB_NO_REGS, NULL);
	else if (strcmp(name, "__switch_to_asm") == 0)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_switch, QEMU_PLUGIN_CB_R_REGS, NULL);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);
		uint32_t slot = slot_of(address);
		qemu_plugin_u64 counter = { counters, slot * sizeof(uint64_t) };

		if (slot)
			watch_entry(insn, address);
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
								    counter, 1);
		if (slot && is_interrupt_return(insn))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_interrupt_end,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
		if (slot)
			continue;
		if (is_magic(insn, MAGIC_COUNTS))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_magic,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
		else if (is_magic(insn, MAGIC_SYMBOLS))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_symbols,
							       QEMU_PLUGIN_CB_R_REGS, NULL);
	}
}

static void on_end(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	if (lost)
		fprintf(out, "lost %llu\n", (unsigned long long)lost);
	fclose(out);
}

static void on_processor(qemu_plugin_id_t id, unsigned int vcpu)
{
	GArray *registers = qemu_plugin_get_registers();
	const qemu_plugin_reg_descriptor *found = (const void *)registers->data;

	(void)id;
	(void)vcpu;
	for (unsigned int i = 0; i < registers->len; i++) {
		if (strcmp(found[i].name, "rdi") == 0)
			first_register = found[i].handle;
		else if (strcmp(found[i].name, "rsi") == 0)
			second_register = found[i].handle;
	}
	g_array_free(registers, 1);
	if (!first_register || !second_register) {
		fprintf(stderr, "profiler: the processor has no rdi or rsi\n");
		exit(EXIT_FAILURE);
	}
}

static void watch(qemu_plugin_id_t id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	qemu_plugin_register_atexit_cb(id, on_end, NULL);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	plugin = id;
	for (int i = 0; i < argc; i++) {
		if (strncmp(argv[i], "out=", 4) == 0)
			out = fopen(argv[i] + 4, "w");
	}
	if (!out) {
		fprintf(stderr, "profiler: out= must name a file\n");
		return -1;
	}
	counters = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
	qemu_plugin_register_vcpu_init_cb(id, on_processor);
	watch(id);
	return 0;
}
