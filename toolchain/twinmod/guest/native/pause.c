// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin of QEMU that gives the host's processor away when a processor of the guest has to wait.
 *
 * A processor that waits for another one executes PAUSE in a loop: for a lock, or until the other one
 * has flushed its TLB. Emulated, each is a thread of the host. Where the host runs more of them than
 * it has processors, the one that is waited for may not run, and the one that waits keeps it from
 * running, for as long as the host's scheduler lets it.
 */
#include <sched.h>

#include "plugin.h"

static const uint8_t PAUSE[] = { 0xf3, 0x90 };

static void give_way(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	sched_yield();
}

static bool is_pause(const struct qemu_plugin_insn *insn)
{
	uint8_t bytes[sizeof(PAUSE)];

	return qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(PAUSE) &&
	       bytes[0] == PAUSE[0] && bytes[1] == PAUSE[1];
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		if (is_pause(insn))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, give_way,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	(void)argc;
	(void)argv;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
