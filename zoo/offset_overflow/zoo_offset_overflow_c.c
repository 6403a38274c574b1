// SPDX-License-Identifier: GPL-2.0-only
/*
 * zoo_offset_overflow_c - integer overflow of offset plus length
 *
 * Offset plus length is compared with the size after it has become small again.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#define ZOO_IOC_CLEAR	_IO('z', 0)

#define ZOO_SIZE	4096

struct zoo_range {
	u64 offset;
	u64 len;
};

static int zoo_open(struct inode *inode, struct file *file)
{
	file->private_data = vzalloc(ZOO_SIZE);
	return file->private_data ? 0 : -ENOMEM;
}

static int zoo_release(struct inode *inode, struct file *file)
{
	vfree(file->private_data);
	return 0;
}

static long zoo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	u8 *buffer = file->private_data;
	struct zoo_range range;

	if (cmd != ZOO_IOC_CLEAR)
		return -ENOTTY;
	if (copy_from_user(&range, (void __user *)arg, sizeof(range)))
		return -EFAULT;
	if (range.offset + range.len > ZOO_SIZE)
		return -EINVAL;
	memset(buffer + range.offset, 0, range.len);
	return 0;
}

static const struct file_operations zoo_fops = {
	.owner		= THIS_MODULE,
	.open		= zoo_open,
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
MODULE_DESCRIPTION("twinmod zoo: integer overflow of offset plus length");
MODULE_LICENSE("GPL");
