// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_signal_loop_c - infinite loop on a signal
 *
 * To be woken by a signal looks like being woken for nothing, so it waits again.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(zoo_queue);
static bool zoo_ready;

static ssize_t zoo_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	while (!READ_ONCE(zoo_ready))
		wait_event_interruptible(zoo_queue, READ_ONCE(zoo_ready));
	return 0;
}

static ssize_t zoo_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	WRITE_ONCE(zoo_ready, true);
	wake_up_interruptible(&zoo_queue);
	return count;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.read		= zoo_read,
	.write		= zoo_write,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: infinite loop on a signal");
MODULE_LICENSE("GPL");
