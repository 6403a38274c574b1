// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_format_string_c - format string
 *
 * The caller's text is used as the format of what is kept.
 */
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#define ZOO_SIZE	64

static char zoo_label[ZOO_SIZE];

static ssize_t zoo_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	char text[ZOO_SIZE] = "";

	if (count >= sizeof(text))
		return -ENOSPC;
	if (copy_from_user(text, from, count))
		return -EFAULT;
	snprintf(zoo_label, sizeof(zoo_label), text);
	return count;
}

static ssize_t zoo_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	return simple_read_from_buffer(to, count, pos, zoo_label, strlen(zoo_label));
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
MODULE_DESCRIPTION("twinmod zoo: format string");
MODULE_LICENSE("GPL");
