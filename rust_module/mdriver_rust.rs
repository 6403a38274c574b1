// SPDX-License-Identifier: GPL-2.0-only

//! mdriver_rust - a character device backed by kernel memory, in Rust.
//!
//! The twin of mdriver_c.c: both hold the rules of DEVICE.md, with the same names, in the same
//! order, with the same comments. Rn is a rule.
//!
//! The memory is an array of pages, each with a spinlock that is held for one copy within that
//! page and for nothing else. So a call is atomic within a page, calls on disjoint pages never
//! wait for each other, and a wait is never longer than one copy of a page.
//!
//! A page of the caller's buffer may be absent, and may take for ever to arrive. So the driver
//! touches the buffer in two ways only: without faults, under the lock; or with faults, no lock
//! held, to or from a spare page that nobody else can see.
//!
//! A page that is mapped stays where it is: whoever maps it takes a reference, under the lock, and
//! a write puts another page in its place only while the reference of the device is the only one.
//!
//! All that is unsafe is in chardev.rs. `forbid` would reach that file too, since it is part of
//! this crate; `deny` lets it have its exception, which is the only one.

#![deny(unsafe_code)]

use kernel::{
    ioctl::{
        _IO,
        _IOR,
        _IOWR, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sizes::{
        SZ_1G,
        SZ_4K, //
    },
    sync::{
        Arc,
        SpinLock, //
    },
    task::might_sleep,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

#[allow(unsafe_code)]
mod chardev;

use chardev::{
    available_bytes,
    fatal_signal_pending,
    CharDevice,
    Events,
    Page,
    Registration,
    SharedPage,
    Span,
    Spare,
    Word,
    SIZE, //
};

// As in mdriver.h.
const MDRIVER_IOC_MAGIC: u32 = 0xDC;
const MDRIVER_IOC_SIZE: u32 = _IOR::<u64>(MDRIVER_IOC_MAGIC, 0);
const MDRIVER_IOC_CLEAR: u32 = _IO(MDRIVER_IOC_MAGIC, 1);
const MDRIVER_IOC_ADD: u32 = _IOWR::<MdriverAdd>(MDRIVER_IOC_MAGIC, 2);

/// `struct mdriver_add`: offset, delta, before.
type MdriverAdd = [u64; 3];

const MDRIVER_SIZE_MIN: u64 = SZ_4K as u64;
const MDRIVER_SIZE_MAX: u64 = SZ_1G as u64;

const MDRIVER_KILLED_PAGES: usize = 8;

module! {
    type: MdriverModule,
    name: "mdriver_rust",
    authors: ["The twinmod authors"],
    description: "twinmod memory driver",
    license: "GPL",
}

/// A page and its lock.
#[pin_data]
struct MdriverPage {
    /// Held for one copy within the page, or to put another in its place.
    #[pin]
    page: SpinLock<Page>,
}

impl MdriverPage {
    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            page <- new_spinlock!(Page::new()?),
        })
    }
}

/// The device.
#[pin_data]
struct Mdriver {
    /// The memory, one entry per page.
    pages: Pin<KVBox<[MdriverPage]>>,
    /// A page kept for the next call that needs a private one.
    #[pin]
    spare: SpinLock<Option<Spare>>,
}

impl Mdriver {
    fn new(size: usize) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            pages: KVBox::pin_slice(
                |_| MdriverPage::new(),
                size / PAGE_SIZE,
                GFP_KERNEL | __GFP_NOWARN,
            )?,
            spare <- new_spinlock!(None),
        })
    }

    /// The bytes from `pos` to the end, `count` at most: none at the end and beyond.
    fn left(&self, pos: usize, count: usize) -> usize {
        self.size().saturating_sub(pos).min(count)
    }

    /// Between two pages of a long call: now and then lets others run, and tells whether to stop.
    /// To look after each page would cost as much as its lock.
    fn killed(index: usize) -> bool {
        if index % MDRIVER_KILLED_PAGES != 0 {
            return false;
        }
        might_sleep();
        fatal_signal_pending()
    }

    fn take_spare(&self) -> Result<Spare> {
        let spare = self.spare.lock().take();

        spare.map_or_else(Spare::new, Ok)
    }

    fn give_spare(&self, spare: Spare) {
        // If there was one by now, it is freed after the lock is released.
        let _other = self.spare.lock().replace(spare);
    }

    /// Copies out of a page to a buffer that is not all there.
    fn read_absent(&self, span: Span, to: &mut IovIterDest<'_>) -> Result<usize> {
        let mut spare = self.take_spare()?;

        spare.copy_from(&self.pages[span.index()].page.lock(), span);

        let moved = spare.read(span, to);
        self.give_spare(spare);
        if moved == 0 {
            return Err(EFAULT);
        }
        Ok(moved)
    }

    /// All of `span` is copied at once, without a fault; or else all of it is copied again, so that
    /// no read returns two states of a page.
    #[inline]
    fn read_page(&self, span: Span, to: &mut IovIterDest<'_>) -> Result<usize> {
        let copied = self.pages[span.index()].page.lock().read_nofault(span, to);

        if copied {
            return Ok(span.len());
        }
        self.read_absent(span, to)
    }

    /// The bytes arrive in the spare page first. A whole page that nobody has mapped then changes
    /// places with it, so a large write is copied once, not twice.
    #[inline]
    fn write_page(
        &self,
        span: Span,
        from: &mut IovIterSource<'_>,
        spare: &mut Spare,
    ) -> Result<usize> {
        let moved = spare.write(span, from);

        if moved == 0 {
            return Err(EFAULT);
        }

        let mut page = self.pages[span.index()].page.lock();
        if moved == PAGE_SIZE && !page.is_shared() {
            spare.swap(&mut page);
        } else {
            spare.copy_to(&mut page, span.first(moved));
        }
        Ok(moved)
    }

    #[inline]
    fn write_pages(
        &self,
        pos: usize,
        count: usize,
        from: &mut IovIterSource<'_>,
        spare: &mut Spare,
    ) -> Result<usize> {
        let mut done = 0;

        loop {
            let span = Span::new(pos + done, count - done);
            let moved = match self.write_page(span, from, spare) {
                Ok(moved) => moved,
                Err(error) if done == 0 => return Err(error),
                Err(_) => return Ok(done),
            };
            done += moved;
            if moved < span.len() || done == count || Self::killed(span.index()) {
                return Ok(done);
            }
        }
    }

    fn clear(&self) -> Result<isize> {
        for (index, page) in self.pages.iter().enumerate() {
            if Self::killed(index) {
                return Err(EINTR);
            }
            page.page.lock().clear();
        }
        Ok(0)
    }

    /// The caller's page may be absent: it is touched before the lock, and after it.
    #[inline]
    fn add(&self, arg: usize) -> Result<isize> {
        let [offset, delta, _] = UserSlice::new(UserPtr::from_addr(arg), size_of::<MdriverAdd>())
            .reader()
            .read::<MdriverAdd>()?;
        let word = Word::new(offset.try_into()?)?;
        let page = self.pages.get(word.index()).ok_or(EINVAL)?;

        let before = page.page.lock().add(word, delta);

        let at = arg + size_of_val(&[offset, delta]);
        UserSlice::new(UserPtr::from_addr(at), size_of_val(&before))
            .writer()
            .write(&before)?;
        Ok(0)
    }
}

impl CharDevice for Mdriver {
    const NAME: &'static CStr = c"mdriver_rust";

    /// R8
    fn size(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }

    /// R4, R6, R7, R9
    #[inline]
    fn read_iter(&self, pos: usize, to: &mut IovIterDest<'_>) -> Result<usize> {
        let count = self.left(pos, to.len());
        let mut done = 0;

        if count == 0 {
            return Ok(0);
        }

        loop {
            let span = Span::new(pos + done, count - done);
            let moved = match self.read_page(span, to) {
                Ok(moved) => moved,
                Err(error) if done == 0 => return Err(error),
                Err(_) => return Ok(done),
            };
            done += moved;
            if moved < span.len() || done == count || Self::killed(span.index()) {
                return Ok(done);
            }
        }
    }

    /// R5, R6, R7, R9
    #[inline]
    fn write_iter(&self, pos: usize, from: &mut IovIterSource<'_>) -> Result<usize> {
        let count = self.left(pos, from.len());

        if from.is_empty() {
            return Ok(0);
        }
        if count == 0 {
            return Err(ENOSPC);
        }

        let mut spare = self.take_spare()?;
        let moved = self.write_pages(pos, count, from, &mut spare);
        self.give_spare(spare);
        moved
    }

    /// R14
    #[inline]
    fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            MDRIVER_IOC_SIZE => {
                let size = self.size() as u64;

                UserSlice::new(UserPtr::from_addr(arg), size_of_val(&size))
                    .writer()
                    .write(&size)?;
                Ok(0)
            }
            MDRIVER_IOC_CLEAR => self.clear(),
            MDRIVER_IOC_ADD => self.add(arg),
            _ => Err(ENOTTY),
        }
    }

    /// R16
    fn poll(&self) -> Events {
        Events::READABLE | Events::WRITABLE
    }

    /// R17
    fn fault(&self, index: usize) -> Option<SharedPage> {
        let page = self.pages.get(index)?;

        Some(page.page.lock().share())
    }

    /// R17
    fn mmap(&self, first: usize, count: usize) -> Result {
        if first > self.pages.len() || count > self.pages.len() - first {
            return Err(EINVAL);
        }
        Ok(())
    }
}

/// R2
fn check_size(bytes: u64) -> Result {
    if (MDRIVER_SIZE_MIN..=MDRIVER_SIZE_MAX).contains(&bytes) && bytes % PAGE_SIZE as u64 == 0 {
        return Ok(());
    }
    pr_err!(
        "size {} refused: not whole pages of {} bytes from {} to {}\n",
        bytes,
        PAGE_SIZE,
        MDRIVER_SIZE_MIN,
        MDRIVER_SIZE_MAX
    );
    Err(EINVAL)
}

/// R2. `__GFP_RETRY_MAYFAIL` protects others from this load only: had it taken all there is, the
/// next one to ask would wake the OOM killer. So an eighth of what is available stays free.
fn check_available(bytes: u64) -> Result {
    let available = available_bytes();

    if bytes <= available - available / 8 {
        return Ok(());
    }
    pr_err!("size {bytes} refused: {available} bytes are available\n");
    Err(ENOMEM)
}

#[pin_data]
struct MdriverModule {
    #[pin]
    _registration: Registration<Mdriver>,
}

impl kernel::InPlaceModule for MdriverModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let size = SIZE.value();

        try_pin_init!(Self {
            _: {
                check_size(size)?;
                check_available(size)?;
            },
            _registration <- Registration::new(Arc::pin_init(
                Mdriver::new(size as usize),
                GFP_KERNEL,
            )?),
            _: {
                pr_info!("{size} bytes\n");
            },
        })
    }
}
