// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_sleep_in_spinlock_c - sleeping under a spinlock
 *
 * An entry is allocated while the list that it goes into is locked.
 */
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#define ZOO_IOC_LOG	_IO('z', 0)

struct zoo_entry {
	struct list_head node;
	unsigned long number;
};

static DEFINE_SPINLOCK(zoo_lock);
static LIST_HEAD(zoo_log);	/* protected by zoo_lock */

static int zoo_add(unsigned long number)
{
	struct zoo_entry *entry;

	spin_lock(&zoo_lock);
	entry = kmalloc_obj(*entry, GFP_KERNEL);
	if (entry) {
		entry->number = number;
		list_add_tail(&entry->node, &zoo_log);
	}
	spin_unlock(&zoo_lock);
	return entry ? 0 : -ENOMEM;
}

static int zoo_release(struct inode *inode, struct file *file)
{
	struct zoo_entry *entry, *next;
	LIST_HEAD(gone);

	spin_lock(&zoo_lock);
	list_splice_init(&zoo_log, &gone);
	spin_unlock(&zoo_lock);
	list_for_each_entry_safe(entry, next, &gone, node)
		kfree(entry);
	return 0;
}

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return cmd == ZOO_IOC_LOG ? zoo_add(arg) : -ENOTTY;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.release	= zoo_release,
	.unlocked_ioctl	= zoo_ioctl,
};

static struct miscdevice zoo_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &zoo_fops,
};
module_misc_device(zoo_misc);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod zoo: sleeping under a spinlock");
MODULE_LICENSE("GPL");
