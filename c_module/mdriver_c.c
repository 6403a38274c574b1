// SPDX-License-Identifier: GPL-2.0-only
/*
 * mdriver_c - a character device backed by kernel memory, in C.
 *
 * The twin of mdriver_rust.rs: both hold the rules of DEVICE.md, with the same
 * names, in the same order, with the same comments. Rn is a rule.
 *
 * The memory is an array of pages, each with a spinlock that is held for one
 * copy within that page and for nothing else. So a call is atomic within a
 * page, calls on disjoint pages never wait for each other, and a wait is never
 * longer than one copy of a page.
 *
 * A page of the caller's buffer may be absent, and may take for ever to arrive.
 * So the driver touches the buffer in two ways only: without faults, under the
 * lock; or with faults, no lock held, to or from a spare page that nobody else
 * can see.
 *
 * A page that is mapped stays where it is: whoever maps it takes a reference,
 * under the lock, and a write puts another page in its place only while the
 * reference of the device is the only one.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/kstrtox.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/splice.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#include "mdriver.h"

#define MDRIVER_SIZE_MIN	SZ_4K
#define MDRIVER_SIZE_MAX	SZ_1G

#define MDRIVER_KILLED_PAGES	8

/* Fails rather than wake the OOM killer, and says nothing in the log. */
#define MDRIVER_GFP	(GFP_KERNEL | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

static u64 size = SZ_1M;

/*
 * kstrtoull() returns ERANGE for a number above 64 bits, where rule R2 wants
 * EINVAL for every bad value.
 */
static int param_set_u64(const char *val, const struct kernel_param *kp)
{
	return kstrtoull(val, 0, kp->arg) ? -EINVAL : 0;
}

static const struct kernel_param_ops param_ops_u64 = {
	.set = param_set_u64,
};

#define param_check_u64 param_check_ullong
module_param(size, u64, 0);
MODULE_PARM_DESC(size, "bytes of memory: whole pages, 4096 to 1073741824 (default 1048576)");

/**
 * struct mdriver_page - a page and its lock
 * @lock: held for one copy within @page, or to put another in its place.
 * @page: the page; in a spare, NULL while the spare is in use.
 */
struct mdriver_page {
	spinlock_t lock;	/* protects the contents of @page, and which page it is */
	struct page *page;
};

/**
 * struct mdriver - the device
 * @misc: its registration.
 * @size: number of bytes.
 * @pages: the memory, one entry per page.
 * @spare: a page kept for the next call that needs a private one.
 */
struct mdriver {
	struct miscdevice misc;
	size_t size;
	struct mdriver_page *pages;
	struct mdriver_page spare;
};

/**
 * struct mdriver_span - the part of a request that lies in one page
 * @index: which page.
 * @offset: where in the page.
 * @len: number of bytes, at least 1.
 */
struct mdriver_span {
	size_t index;
	size_t offset;
	size_t len;
};

static struct mdriver_span mdriver_span(size_t pos, size_t left)
{
	size_t offset = offset_in_page(pos);

	return (struct mdriver_span) {
		.index = pos >> PAGE_SHIFT,
		.offset = offset,
		.len = min(left, PAGE_SIZE - offset),
	};
}

/* misc_open() leaves the miscdevice in ->private_data. */
static struct mdriver *mdriver_of(struct file *file)
{
	return container_of(file->private_data, struct mdriver, misc);
}

/* The bytes from @pos to the end, @count at most: none at the end and beyond. */
static size_t mdriver_left(struct mdriver *mdriver, loff_t pos, size_t count)
{
	if (pos >= mdriver->size)
		return 0;
	return min_t(size_t, count, mdriver->size - pos);
}

/*
 * Between two pages of a long call: now and then lets others run, and tells whether to stop.
 * To look after each page would cost as much as its lock.
 */
static bool mdriver_killed(size_t index)
{
	if (index % MDRIVER_KILLED_PAGES)
		return false;
	cond_resched();
	return fatal_signal_pending(current);
}

static struct page *mdriver_take_spare(struct mdriver *mdriver)
{
	struct page *spare;

	spin_lock(&mdriver->spare.lock);
	spare = mdriver->spare.page;
	mdriver->spare.page = NULL;
	spin_unlock(&mdriver->spare.lock);

	return spare ?: alloc_page(MDRIVER_GFP);
}

static void mdriver_give_spare(struct mdriver *mdriver, struct page *spare)
{
	spin_lock(&mdriver->spare.lock);
	swap(mdriver->spare.page, spare);
	spin_unlock(&mdriver->spare.lock);

	/* If there was one by now, it is freed after the lock is released. */
	if (spare)
		__free_page(spare);
}

/* Copies out of a page to a buffer that is not all there. */
static ssize_t mdriver_read_absent(struct mdriver *mdriver, struct mdriver_span span,
				   struct iov_iter *to)
{
	struct mdriver_page *page = &mdriver->pages[span.index];
	struct page *spare = mdriver_take_spare(mdriver);
	size_t moved;

	if (!spare)
		return -ENOMEM;

	spin_lock(&page->lock);
	memcpy_page(spare, span.offset, page->page, span.offset, span.len);
	spin_unlock(&page->lock);

	moved = copy_page_to_iter(spare, span.offset, span.len, to);
	mdriver_give_spare(mdriver, spare);
	return moved ?: -EFAULT;
}

/*
 * All of @span is copied at once, without a fault; or else all of it is copied
 * again, so that no read returns two states of a page.
 */
static ssize_t mdriver_read_page(struct mdriver *mdriver, struct mdriver_span span,
				 struct iov_iter *to)
{
	struct mdriver_page *page = &mdriver->pages[span.index];
	size_t moved;

	spin_lock(&page->lock);
	pagefault_disable();
	moved = copy_page_to_iter(page->page, span.offset, span.len, to);
	pagefault_enable();
	spin_unlock(&page->lock);

	if (likely(moved == span.len))
		return moved;
	iov_iter_revert(to, moved);
	return mdriver_read_absent(mdriver, span, to);
}

/*
 * The bytes arrive in the spare page first. A whole page that nobody has mapped
 * then changes places with it, so a large write is copied once, not twice.
 */
static ssize_t mdriver_write_page(struct mdriver *mdriver, struct mdriver_span span,
				  struct iov_iter *from, struct page **spare)
{
	struct mdriver_page *page = &mdriver->pages[span.index];
	size_t moved = copy_page_from_iter(*spare, span.offset, span.len, from);

	if (!moved)
		return -EFAULT;

	spin_lock(&page->lock);
	if (moved == PAGE_SIZE && page_count(page->page) == 1)
		swap(page->page, *spare);
	else
		memcpy_page(page->page, span.offset, *spare, span.offset, moved);
	spin_unlock(&page->lock);
	return moved;
}

static ssize_t mdriver_write_pages(struct mdriver *mdriver, size_t pos, size_t count,
				   struct iov_iter *from, struct page **spare)
{
	struct mdriver_span span;
	size_t done = 0;
	ssize_t moved;

	do {
		span = mdriver_span(pos + done, count - done);
		moved = mdriver_write_page(mdriver, span, from, spare);
		if (moved < 0)
			break;
		done += moved;
	} while (moved == span.len && done < count && !mdriver_killed(span.index));

	return done ?: moved;
}

static int mdriver_clear(struct mdriver *mdriver)
{
	for (size_t i = 0; i < mdriver->size >> PAGE_SHIFT; i++) {
		struct mdriver_page *page = &mdriver->pages[i];

		if (mdriver_killed(i))
			return -EINTR;
		spin_lock(&page->lock);
		clear_highpage(page->page);
		spin_unlock(&page->lock);
	}
	return 0;
}

/* The caller's page may be absent: it is touched before the lock, and after it. */
static int mdriver_add(struct mdriver *mdriver, struct mdriver_add __user *arg)
{
	struct mdriver_page *page;
	struct mdriver_add add;
	void *address;
	u64 *number;

	if (copy_from_user(&add, arg, sizeof(add)))
		return -EFAULT;
	if (!IS_ALIGNED(add.offset, sizeof(*number)) || add.offset >= mdriver->size)
		return -EINVAL;

	page = &mdriver->pages[add.offset >> PAGE_SHIFT];
	spin_lock(&page->lock);
	address = kmap_local_page(page->page);
	number = address + offset_in_page(add.offset);
	add.before = READ_ONCE(*number);
	WRITE_ONCE(*number, add.before + add.delta);
	kunmap_local(address);
	spin_unlock(&page->lock);

	return put_user(add.before, &arg->before);
}

/* R4, R6, R7, R9 */
static ssize_t mdriver_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct mdriver *mdriver = mdriver_of(iocb->ki_filp);
	size_t count = mdriver_left(mdriver, iocb->ki_pos, iov_iter_count(to));
	struct mdriver_span span;
	size_t done = 0;
	ssize_t moved;

	if (!count)
		return 0;

	do {
		span = mdriver_span(iocb->ki_pos + done, count - done);
		moved = mdriver_read_page(mdriver, span, to);
		if (moved < 0)
			break;
		done += moved;
	} while (moved == span.len && done < count && !mdriver_killed(span.index));

	iocb->ki_pos += done;
	return done ?: moved;
}

/* R5, R6, R7, R9 */
static ssize_t mdriver_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct mdriver *mdriver = mdriver_of(iocb->ki_filp);
	size_t count = mdriver_left(mdriver, iocb->ki_pos, iov_iter_count(from));
	struct page *spare;
	ssize_t moved;

	if (!iov_iter_count(from))
		return 0;
	if (!count)
		return -ENOSPC;

	spare = mdriver_take_spare(mdriver);
	if (!spare)
		return -ENOMEM;
	moved = mdriver_write_pages(mdriver, iocb->ki_pos, count, from, &spare);
	mdriver_give_spare(mdriver, spare);

	if (moved > 0)
		iocb->ki_pos += moved;
	return moved;
}

/* R8 */
static loff_t mdriver_llseek(struct file *file, loff_t offset, int whence)
{
	return fixed_size_llseek(file, offset, whence, mdriver_of(file)->size);
}

/* R14 */
static long mdriver_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct mdriver *mdriver = mdriver_of(file);

	switch (cmd) {
	case MDRIVER_IOC_SIZE:
		return put_user((u64)mdriver->size, (u64 __user *)arg);
	case MDRIVER_IOC_CLEAR:
		return mdriver_clear(mdriver);
	case MDRIVER_IOC_ADD:
		return mdriver_add(mdriver, (struct mdriver_add __user *)arg);
	default:
		return -ENOTTY;
	}
}

/* R16 */
static __poll_t mdriver_poll(struct file *file, struct poll_table_struct *table)
{
	return EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM;
}

/* R17 */
static vm_fault_t mdriver_fault(struct vm_fault *vmf)
{
	struct mdriver *mdriver = mdriver_of(vmf->vma->vm_file);
	struct mdriver_page *page;

	if (vmf->pgoff >= mdriver->size >> PAGE_SHIFT)
		return VM_FAULT_SIGBUS;

	page = &mdriver->pages[vmf->pgoff];
	spin_lock(&page->lock);
	get_page(page->page);
	vmf->page = page->page;
	spin_unlock(&page->lock);
	return 0;
}

static const struct vm_operations_struct mdriver_vm_ops = {
	.fault	= mdriver_fault,
};

/* R17 */
static int mdriver_mmap(struct file *file, struct vm_area_struct *vma)
{
	size_t pages = mdriver_of(file)->size >> PAGE_SHIFT;

	if (vma->vm_pgoff > pages || vma_pages(vma) > pages - vma->vm_pgoff)
		return -EINVAL;

	vm_flags_set(vma, VM_DONTEXPAND);
	vma->vm_ops = &mdriver_vm_ops;
	return 0;
}

static const struct file_operations mdriver_fops = {
	.owner		= THIS_MODULE,
	.llseek		= mdriver_llseek,
	.read_iter	= mdriver_read_iter,
	.write_iter	= mdriver_write_iter,
	.unlocked_ioctl	= mdriver_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.poll		= mdriver_poll,
	.splice_read	= copy_splice_read,		/* R15 */
	.splice_write	= iter_file_splice_write,	/* R15 */
	.mmap		= mdriver_mmap,
};

static struct mdriver mdriver = {
	.misc = {
		.minor	= MISC_DYNAMIC_MINOR,
		.name	= KBUILD_MODNAME,
		.fops	= &mdriver_fops,
		.mode	= 0600,
	},
};

/* R2 */
static int mdriver_check_size(u64 bytes)
{
	if (bytes >= MDRIVER_SIZE_MIN && bytes <= MDRIVER_SIZE_MAX && PAGE_ALIGNED(bytes))
		return 0;
	pr_err("size %llu refused: not whole pages of %lu bytes from %d to %d\n",
	       bytes, PAGE_SIZE, MDRIVER_SIZE_MIN, MDRIVER_SIZE_MAX);
	return -EINVAL;
}

/*
 * R2. __GFP_RETRY_MAYFAIL protects others from this load only: had it taken all
 * there is, the next one to ask would wake the OOM killer. So an eighth of what
 * is available stays free.
 */
static int mdriver_check_available(u64 bytes)
{
	u64 available = (u64)max(si_mem_available(), 0L) << PAGE_SHIFT;

	if (bytes <= available - available / 8)
		return 0;
	pr_err("size %llu refused: %llu bytes are available\n", bytes, available);
	return -ENOMEM;
}

static void mdriver_free_pages(struct mdriver *mdriver)
{
	for (size_t i = 0; i < mdriver->size >> PAGE_SHIFT; i++) {
		if (!mdriver->pages[i].page)
			break;
		__free_page(mdriver->pages[i].page);
		cond_resched();
	}
	kvfree(mdriver->pages);
}

static int mdriver_alloc_pages(struct mdriver *mdriver, size_t bytes)
{
	mdriver->pages = kvcalloc(bytes >> PAGE_SHIFT, sizeof(*mdriver->pages), MDRIVER_GFP);
	if (!mdriver->pages)
		return -ENOMEM;
	mdriver->size = bytes;

	for (size_t i = 0; i < bytes >> PAGE_SHIFT; i++) {
		struct mdriver_page *page = &mdriver->pages[i];

		spin_lock_init(&page->lock);
		page->page = alloc_page(MDRIVER_GFP);
		if (!page->page) {
			mdriver_free_pages(mdriver);
			return -ENOMEM;
		}
		cond_resched();
	}
	return 0;
}

static int __init mdriver_init(void)
{
	int ret;

	ret = mdriver_check_size(size) ?: mdriver_check_available(size);
	if (ret)
		return ret;

	spin_lock_init(&mdriver.spare.lock);
	ret = mdriver_alloc_pages(&mdriver, size);
	if (ret)
		return ret;

	ret = misc_register(&mdriver.misc);
	if (ret) {
		mdriver_free_pages(&mdriver);
		return ret;
	}

	pr_info("%zu bytes\n", mdriver.size);
	return 0;
}
module_init(mdriver_init);

static void __exit mdriver_exit(void)
{
	misc_deregister(&mdriver.misc);
	if (mdriver.spare.page)
		__free_page(mdriver.spare.page);
	mdriver_free_pages(&mdriver);
}
module_exit(mdriver_exit);

MODULE_AUTHOR("The twinmod authors");
MODULE_DESCRIPTION("twinmod memory driver");
MODULE_LICENSE("GPL");
#ifdef PROJECT_VERSION
MODULE_VERSION(PROJECT_VERSION);
#endif
