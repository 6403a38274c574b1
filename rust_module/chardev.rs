// SPDX-License-Identifier: GPL-2.0-only

//! What a character device backed by pages needs and the kernel crate does not offer (yet).
//!
//! The one file of the driver with `unsafe` in it. Safe code cannot break memory with it: pages
//! are reached through [`Page`] and [`Spare`] alone, and within a [`Span`] or a [`Word`] only.
//!
//! - [`CharDevice`] and [`Registration`]: a misc device with `llseek`, `poll`, splice and
//!   `owner`. The kernel's own [`MiscDevice`] has none of them but `owner`, from Linux 7.3 on.
//! - [`Page`], [`Spare`]: pages that are copied to and from user space, where the type
//!   says whether a copy may fault.
//! - [`SharedPage`]: a page on its way to a mapping.
//! - [`Parameter`]: a number that is read as every module in C reads it.
//! - [`fatal_signal_pending`] and [`available_bytes`]: two questions to the kernel.
//!
//! [`MiscDevice`]: kernel::miscdevice::MiscDevice

use core::{
    marker::PhantomData,
    mem::{
        self,
        ManuallyDrop, //
    },
    ops::BitOr,
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        compiler_fence,
        Ordering::SeqCst, //
    }, //
};
use kernel::{
    bindings,
    container_of,
    current,
    error::{
        from_result,
        to_result, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    mm::virt::VmaNew,
    module_param::KernelParam,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

/// The line that `MODULE_VERSION()` makes in C; `module!` has no key for it.
#[cfg(MODULE)]
const VERSION_LINE: &str = concat!("version=", env!("PROJECT_VERSION"), "\0");

#[cfg(MODULE)]
#[link_section = ".modinfo"]
#[used(compiler)]
static VERSION: [u8; VERSION_LINE.len()] = *VERSION_LINE.as_bytes().first_chunk().unwrap();

/// The lines and the entry that `module_param()` and `MODULE_PARM_DESC()` make in C.
#[cfg(MODULE)]
#[link_section = ".modinfo"]
#[used(compiler)]
static SIZE_TYPE: [u8; 18] = *b"parmtype=size:u64\0";

#[cfg(MODULE)]
#[link_section = ".modinfo"]
#[used(compiler)]
static SIZE_DESCRIPTION: [u8; 77] =
    *b"parm=size:bytes of memory: whole pages, 4096 to 1073741824 (default 1048576)\0";

#[cfg(MODULE)]
#[link_section = "__param"]
#[used(compiler)]
static SIZE_ENTRY: KernelParam = SIZE.entry(c"size");

/// The module parameter `size`.
pub(crate) static SIZE: Parameter = Parameter::new(1048576);

/// A module parameter that is a number of 64 bits, and not in sysfs.
///
/// The parameters of `module!` take other texts for numbers than those of C do: `0b1` and `0o1`,
/// but not `+0x1`; and a parameter that is given twice makes the load fail with EEXIST.
pub(crate) struct Parameter(Atomic<u64>);

impl Parameter {
    const OPS: bindings::kernel_param_ops = bindings::kernel_param_ops {
        set: Some(Self::set),
        ..pin_init::zeroed()
    };

    const fn new(default: u64) -> Self {
        Self(Atomic::new(default))
    }

    /// The number that the load gave, or the default.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// What the kernel finds it by.
    #[cfg(MODULE)]
    const fn entry(&'static self, name: &'static CStr) -> KernelParam {
        KernelParam::new(bindings::kernel_param {
            name: kernel::str::as_char_ptr_in_const_context(name),
            mod_: (&raw const bindings::__this_module).cast_mut(),
            ops: &Self::OPS,
            perm: 0,
            level: -1,
            flags: 0,
            __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                arg: ptr::from_ref(self).cast_mut().cast(),
            },
        })
    }

    /// As `param_set_ullong()`, but EINVAL for a number above 64 bits too: R2.
    ///
    /// # Safety
    ///
    /// `text` must be a string, and `param` what `entry()` returned.
    unsafe extern "C" fn set(text: *const c_char, param: *const bindings::kernel_param) -> c_int {
        let mut number = 0;

        // SAFETY: `text` is a string; the kernel passes none that is null without being asked to.
        if unsafe { bindings::kstrtoull(text, 0, &raw mut number) } != 0 {
            return EINVAL.to_errno();
        }

        // SAFETY: `entry()` left the address of a static there.
        let parameter = unsafe { &*(*param).__bindgen_anon_1.arg.cast::<Self>() };
        parameter.0.store(number, Relaxed);
        0
    }
}

/// A device of a fixed number of bytes.
///
/// Its methods are the `file_operations` of the same names.
pub(crate) trait CharDevice: Send + Sync + Sized + 'static {
    /// The name below `/dev`.
    const NAME: &'static CStr;

    /// The number of bytes, where `lseek(2)` ends.
    fn size(&self) -> usize;

    /// Copies from the device at `pos`; the file position then moves by what is returned.
    fn read_iter(&self, pos: usize, to: &mut IovIterDest<'_>) -> Result<usize>;

    /// Copies to the device at `pos`; the file position then moves by what is returned.
    fn write_iter(&self, pos: usize, from: &mut IovIterSource<'_>) -> Result<usize>;

    /// Serves one `ioctl(2)`.
    fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize>;

    /// Says what would not wait; nobody is woken when that changes.
    fn poll(&self) -> Events;

    /// Finds the page that a mapping has at `index`; `None` is a SIGBUS.
    fn fault(&self, index: usize) -> Option<SharedPage>;

    /// Says whether `count` pages from the page `first` on may be mapped.
    fn mmap(&self, first: usize, count: usize) -> Result;
}

/// What `poll(2)` can tell.
#[derive(Clone, Copy)]
pub(crate) struct Events(bindings::__poll_t);

impl Events {
    /// `EPOLLIN | EPOLLRDNORM`
    pub(crate) const READABLE: Self = Self(bindings::POLLIN | bindings::POLLRDNORM);

    /// `EPOLLOUT | EPOLLWRNORM`
    pub(crate) const WRITABLE: Self = Self(bindings::POLLOUT | bindings::POLLWRNORM);
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A registered misc device: a dynamic minor, for root only.
///
/// # Invariants
///
/// `misc` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: CharDevice> {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    device: Arc<T>,
}

// SAFETY: `misc_deregister()` may be called by any thread, and `device` can be sent to it.
unsafe impl<T: CharDevice> Send for Registration<T> {}
// SAFETY: There are no methods; what `open()` reads is `Sync`.
unsafe impl<T: CharDevice> Sync for Registration<T> {}

impl<T: CharDevice> Registration<T> {
    /// Registers `device`.
    pub(crate) fn new(device: Arc<T>) -> impl PinInit<Self, Error> {
        // INVARIANT: `misc_register()` is the last thing to be done. It comes after `device`, since
        // the first `open()` may come before it returns.
        try_pin_init!(Self {
            device,
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                // SAFETY: `slot` can be written to.
                unsafe { slot.write(FileOperations::<T>::miscdevice()) };

                // SAFETY: `slot` is pinned, and `PinnedDrop` runs before it is gone.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
        })
    }
}

#[pinned_drop]
impl<T: CharDevice> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `misc` is registered, by the type invariant.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// The `file_operations` of a [`CharDevice`].
///
/// An open file holds a reference to the device in `private_data`, from `open` to `release`, and
/// one to the module through `owner`. So both outlive it whatever becomes of the registration.
struct FileOperations<T>(PhantomData<T>);

impl<T: CharDevice> FileOperations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: (&raw const bindings::__this_module).cast_mut(),
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        write_iter: Some(Self::write_iter),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        poll: Some(Self::poll),
        splice_read: Some(bindings::copy_splice_read), // R15
        splice_write: Some(bindings::iter_file_splice_write), // R15
        mmap: Some(Self::mmap),
        ..pin_init::zeroed()
    };

    const VM_TABLE: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::fault),
        ..pin_init::zeroed()
    };

    fn miscdevice() -> bindings::miscdevice {
        bindings::miscdevice {
            minor: bindings::MISC_DYNAMIC_MINOR as c_int,
            name: kernel::str::as_char_ptr_in_const_context(T::NAME),
            fops: &Self::TABLE,
            mode: 0o600,
            ..pin_init::zeroed()
        }
    }

    /// # Safety
    ///
    /// `file` must be open, and stay so for `'a`.
    unsafe fn device<'a>(file: *mut bindings::file) -> ArcBorrow<'a, T> {
        // SAFETY: `open()` left an `Arc<T>` there, which `release()` takes back.
        unsafe { Arc::<T>::borrow((*file).private_data) }
    }

    /// # Safety
    ///
    /// `file` must be on its way through `misc_open()` to the device of a `Registration<T>`.
    unsafe extern "C" fn open(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `misc_open()` left the address of the `miscdevice` there.
        let misc: *mut Opaque<bindings::miscdevice> = unsafe { (*file).private_data }.cast();
        // SAFETY: It is the one in a `Registration<T>`. That is not dropped before the end of
        // this function, since `misc_deregister()` waits for `misc_open()`.
        let registration = unsafe { &*container_of!(misc, Registration<T>, misc) };

        // SAFETY: `private_data` belongs to `open()`.
        unsafe { (*file).private_data = registration.device.clone().into_foreign() };
        0
    }

    /// # Safety
    ///
    /// `file` must be on its way out, after `open()`.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open()` left an `Arc<T>` there, and nobody borrows it any more.
        drop(unsafe { Arc::<T>::from_foreign((*file).private_data) });
        0
    }

    /// # Safety
    ///
    /// `file` must be open.
    unsafe extern "C" fn llseek(file: *mut bindings::file, offset: i64, whence: c_int) -> i64 {
        // SAFETY: `file` is open.
        let device = unsafe { Self::device(file) };
        // SAFETY: `file` is open.
        unsafe { bindings::fixed_size_llseek(file, offset, whence, device.size() as i64) }
    }

    /// # Safety
    ///
    /// `iocb` must be of an open file, and `iter` the destination that came with it.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The file stays open for the call.
        let device = unsafe { Self::device((*iocb).ki_filp) };
        // SAFETY: `iocb` is ours for the call.
        let pos = unsafe { &mut (*iocb).ki_pos };
        // SAFETY: `iter` is ours for the call, and a destination.
        let to = unsafe { IovIterDest::from_raw(iter) };

        from_result(|| advance(pos, |pos| device.read_iter(pos, to)))
    }

    /// # Safety
    ///
    /// `iocb` must be of an open file, and `iter` the source that came with it.
    unsafe extern "C" fn write_iter(
        iocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The file stays open for the call.
        let device = unsafe { Self::device((*iocb).ki_filp) };
        // SAFETY: `iocb` is ours for the call.
        let pos = unsafe { &mut (*iocb).ki_pos };
        // SAFETY: `iter` is ours for the call, and a source.
        let from = unsafe { IovIterSource::from_raw(iter) };

        from_result(|| advance(pos, |pos| device.write_iter(pos, from)))
    }

    /// # Safety
    ///
    /// `file` must be open.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: `file` is open.
        let device = unsafe { Self::device(file) };

        from_result(|| device.ioctl(cmd, arg))
    }

    /// # Safety
    ///
    /// `file` must be open.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        _table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: `file` is open.
        unsafe { Self::device(file) }.poll().0
    }

    /// # Safety
    ///
    /// `vmf` must be of a mapping that `mmap()` made.
    unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: `vmf` is ours for the call.
        let (vma, index) = unsafe {
            let place = &(*vmf).__bindgen_anon_1;
            (place.vma, place.pgoff)
        };
        // SAFETY: A mapping keeps its file open.
        let device = unsafe { Self::device((*vma).vm_file) };

        let Some(page) = device.fault(index) else {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        };

        // SAFETY: `vmf` is ours for the call.
        unsafe { (*vmf).page = page.into_raw() };
        0
    }

    /// # Safety
    ///
    /// `file` must be open, and `vma` a mapping of it that is being set up.
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: `file` is open.
        let device = unsafe { Self::device(file) };
        // SAFETY: `vma` is being set up.
        let area = unsafe { VmaNew::from_raw(vma) };
        // SAFETY: `vma` is ours for the call.
        let first = unsafe { (*vma).vm_pgoff };

        from_result(|| {
            device.mmap(first, (area.end() - area.start()) >> PAGE_SHIFT)?;

            area.set_dontexpand();
            // SAFETY: `vma` is ours for the call.
            unsafe { (*vma).vm_ops = &Self::VM_TABLE };
            Ok(0)
        })
    }
}

/// Moves `pos` by what `copy` moved, on success only.
fn advance(pos: &mut i64, copy: impl FnOnce(usize) -> Result<usize>) -> Result<isize> {
    // The VFS lets no negative position pass: rw_verify_area().
    let moved = copy(usize::try_from(*pos)?)?;

    *pos += moved as i64;
    Ok(moved as isize)
}

/// The part of a request that lies in one page.
///
/// # Invariants
///
/// `offset + len <= PAGE_SIZE`.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    index: usize,
    offset: usize,
    len: usize,
}

impl Span {
    /// The first page's part of the `left` bytes from `pos` on.
    #[inline]
    pub(crate) fn new(pos: usize, left: usize) -> Self {
        let offset = pos % PAGE_SIZE;

        // INVARIANT: By the second operand of `min`.
        Self {
            index: pos >> PAGE_SHIFT,
            offset,
            len: left.min(PAGE_SIZE - offset),
        }
    }

    /// Which page.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.index
    }

    /// The number of bytes.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// The first `len` bytes of it.
    #[inline]
    pub(crate) fn first(self, len: usize) -> Self {
        // INVARIANT: `len` does not grow.
        Self {
            len: self.len.min(len),
            ..self
        }
    }
}

/// A number of 8 bytes that is aligned to 8, so that it lies in one page.
///
/// # Invariants
///
/// `offset + 8 <= PAGE_SIZE`, and `offset` is a multiple of 8.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    index: usize,
    offset: usize,
}

impl Word {
    /// The number at `pos`, or `EINVAL` if `pos` is not aligned.
    pub(crate) fn new(pos: usize) -> Result<Self> {
        if pos % size_of::<u64>() != 0 {
            return Err(EINVAL);
        }

        // INVARIANT: `pos` is a multiple of 8, and so is the size of a page.
        Ok(Self {
            index: pos >> PAGE_SHIFT,
            offset: pos % PAGE_SIZE,
        })
    }

    /// Which page.
    pub(crate) fn index(self) -> usize {
        self.index
    }
}

/// A page of memory, to be kept in a lock. No method of it faults or sleeps.
///
/// What user space does through a mapping of the page is outside the lock. It races with the
/// copies here as with `memcpy()` in C: what is copied are bytes, of which any value is valid.
///
/// # Invariants
///
/// The pointer owns a reference to one page, of order 0, of which there is no other `Page`.
pub(crate) struct Page(NonNull<bindings::page>);

// SAFETY: A page belongs to no thread.
unsafe impl Send for Page {}
// SAFETY: Through `&Page`, memory is read only.
unsafe impl Sync for Page {}

impl Page {
    /// Fails rather than wake the OOM killer, and says nothing in the log.
    const GFP: bindings::gfp_t = bindings::GFP_KERNEL
        | bindings::__GFP_ZERO
        | 1 << bindings::___GFP_RETRY_MAYFAIL_BIT
        | bindings::__GFP_NOWARN;

    /// A new page, all zero.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: It may be called wherever sleeping is allowed, with any flags.
        let page = unsafe { bindings::alloc_pages(Self::GFP, 0) };

        // INVARIANT: The page is new.
        NonNull::new(page).map(Self).ok_or(ENOMEM)
    }

    /// Copies all of `span` to user space, or returns false and leaves `to` as it was.
    #[inline]
    pub(crate) fn read_nofault(&self, span: Span, to: &mut IovIterDest<'_>) -> bool {
        // SAFETY: `span` lies in the page, which is ours.
        let moved = without_faults(|| unsafe {
            bindings::copy_page_to_iter(self.0.as_ptr(), span.offset, span.len, to.as_raw())
        });
        if moved == span.len {
            return true;
        }

        // SAFETY: `to` has just been advanced by as much.
        unsafe { to.revert(moved) };
        false
    }

    /// Makes `span` equal to that of `source`.
    #[inline]
    fn copy_from(&mut self, source: &Page, span: Span) {
        self.map(|to| {
            source.map(|from| {
                // SAFETY: `span` lies in both pages. They are two, and the one that is written
                // to is borrowed as mutable.
                unsafe {
                    ptr::copy_nonoverlapping(from.add(span.offset), to.add(span.offset), span.len)
                }
            })
        });
    }

    /// Makes the page all zero.
    pub(crate) fn clear(&mut self) {
        // SAFETY: The page is that large, and borrowed as mutable.
        self.map(|to| unsafe { ptr::write_bytes(to, 0, PAGE_SIZE) });
    }

    /// Adds `delta` to `word`, modulo 2^64, and returns what it was before.
    pub(crate) fn add(&mut self, word: Word, delta: u64) -> u64 {
        self.map(|address| {
            // SAFETY: `word` lies in the page, which is borrowed as mutable, and is aligned.
            unsafe {
                let number = address.add(word.offset).cast::<u64>();
                let before = number.read_volatile();

                number.write_volatile(before.wrapping_add(delta));
                before
            }
        })
    }

    /// Another reference to the page, for a mapping.
    pub(crate) fn share(&self) -> SharedPage {
        // get_page() is inline in C, and has no helper.
        self.references().add(1, Relaxed);

        // INVARIANT: The reference has just been taken.
        SharedPage(self.0)
    }

    /// Whether anyone else has a reference.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.references().load(Relaxed) != 1
    }

    #[inline]
    fn references(&self) -> &Atomic<c_int> {
        // SAFETY: The page is ours. Everybody's access to its count is atomic.
        unsafe { Atomic::from_ptr(&raw mut (*self.0.as_ptr())._refcount.counter) }
    }

    /// Calls `f` with the address of the page, and returns what it returns.
    #[inline]
    fn map<R>(&self, f: impl FnOnce(*mut u8) -> R) -> R {
        // SAFETY: The page is ours.
        let address = unsafe { bindings::kmap_local_page(self.0.as_ptr()) };

        let result = f(address.cast());

        // SAFETY: Mappings nest, as closures do.
        unsafe { bindings::kunmap_local(address) };
        result
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, to a page of order 0, and not used any more.
        unsafe { bindings::__free_pages(self.0.as_ptr(), 0) };
    }
}

/// A reference to a [`Page`] for the kernel to map. It gives no access.
///
/// # Invariants
///
/// The pointer owns a reference to a page of order 0.
pub(crate) struct SharedPage(NonNull<bindings::page>);

impl SharedPage {
    /// Hands the reference over.
    fn into_raw(self) -> *mut bindings::page {
        ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, to a page of order 0, and not used any more.
        unsafe { bindings::__free_pages(self.0.as_ptr(), 0) };
    }
}

/// A page that nobody else can see, for copies that may fault. Not to be used under a lock.
pub(crate) struct Spare(Page);

impl Spare {
    /// A new page.
    pub(crate) fn new() -> Result<Self> {
        Page::new().map(Self)
    }

    /// Makes `span` equal to that of `page`.
    #[inline]
    pub(crate) fn copy_from(&mut self, page: &Page, span: Span) {
        self.0.copy_from(page, span);
    }

    /// Makes `span` of `page` equal to that of the spare.
    #[inline]
    pub(crate) fn copy_to(&self, page: &mut Page, span: Span) {
        page.copy_from(&self.0, span);
    }

    /// Changes places with `page`.
    #[inline]
    pub(crate) fn swap(&mut self, page: &mut Page) {
        mem::swap(&mut self.0, page);
    }

    /// Copies `span` to user space, and returns how many bytes there was room for.
    pub(crate) fn read(&self, span: Span, to: &mut IovIterDest<'_>) -> usize {
        // SAFETY: `span` lies in the page, which is ours.
        unsafe {
            bindings::copy_page_to_iter(self.0 .0.as_ptr(), span.offset, span.len, to.as_raw())
        }
    }

    /// Copies `span` from user space, and returns how many bytes there were.
    #[inline]
    pub(crate) fn write(&mut self, span: Span, from: &mut IovIterSource<'_>) -> usize {
        // SAFETY: `span` lies in the page, which is ours and borrowed as mutable.
        unsafe {
            bindings::copy_page_from_iter(self.0 .0.as_ptr(), span.offset, span.len, from.as_raw())
        }
    }
}

/// Calls `f`, in which no page fault is answered, and returns what it returns.
#[inline]
fn without_faults<R>(f: impl FnOnce() -> R) -> R {
    // pagefault_disable() is inline in C, and has no helper.
    // SAFETY: The task is this very thread, which alone uses that number.
    let depth = unsafe { &raw mut (*current!().as_ptr()).pagefault_disabled };

    // SAFETY: It is the task's, which runs here.
    unsafe { *depth = (*depth).wrapping_add(1) };
    compiler_fence(SeqCst);

    let result = f();

    compiler_fence(SeqCst);
    // SAFETY: As above.
    unsafe { *depth = (*depth).wrapping_sub(1) };
    result
}

/// Whether the thread is about to be killed.
pub(crate) fn fatal_signal_pending() -> bool {
    let task = current!();
    if !task.signal_pending() {
        return false;
    }

    // fatal_signal_pending() is inline in C, and has no helper.
    // SAFETY: The task is this very thread. The word is read in C too without the lock.
    let pending = unsafe { (*task.as_ptr()).pending.signal.sig[0] };
    pending & (1 << (bindings::SIGKILL - 1)) != 0
}

/// The bytes that a new user could have without swapping, as `MemAvailable` of `/proc/meminfo`.
pub(crate) fn available_bytes() -> u64 {
    // SAFETY: It may be called at any time.
    let pages = unsafe { bindings::si_mem_available() };

    (pages.max(0) as u64) << PAGE_SHIFT
}
