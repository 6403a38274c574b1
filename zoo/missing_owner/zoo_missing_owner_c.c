// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_missing_owner_c - missing owner, so that unload frees running code
 *
 * Without an owner the kernel does not know that an open file needs this module.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static const char zoo_text[] = "zoo\n";

static ssize_t zoo_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	return simple_read_from_buffer(to, count, pos, zoo_text, sizeof(zoo_text) - 1);
}

static const struct file_operations zoo_fops = {
	.read		= zoo_read,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: missing owner, so that unload frees running code");
MODULE_LICENSE("GPL");
