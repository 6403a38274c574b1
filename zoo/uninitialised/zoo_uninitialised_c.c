// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_uninitialised_c - uninitialised memory given to user space
 *
 * The buffer is read before anything was written to it.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define ZOO_SIZE	2048

static int zoo_open(struct inode *inode, struct file *file)
{
	file->private_data = kmalloc(ZOO_SIZE, GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static int zoo_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static ssize_t zoo_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	return simple_read_from_buffer(to, count, pos, file->private_data, ZOO_SIZE);
}

static ssize_t zoo_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	return simple_write_to_buffer(file->private_data, ZOO_SIZE, pos, from, count);
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.open		= zoo_open,
	.release	= zoo_release,
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
MODULE_DESCRIPTION("twinmod zoo: uninitialised memory given to user space");
MODULE_LICENSE("GPL");
