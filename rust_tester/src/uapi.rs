// SPDX-License-Identifier: GPL-2.0-only
//! The ioctl numbers, which `c_module/mdriver.h` defines: the one place where Rust repeats them.

use libc::{_IO, _IOR, _IOWR, Ioctl};

/// `MDRIVER_IOC_MAGIC`.
const MAGIC: u32 = 0xDC;

/// Size of the device in bytes, written to the `u64` that the argument points to.
pub const IOC_SIZE: Ioctl = _IOR::<u64>(MAGIC, 0);

/// Make every byte zero; no argument.
pub const IOC_CLEAR: Ioctl = _IO(MAGIC, 1);

/// `struct mdriver_add`.
#[repr(C)]
pub struct Add {
    pub offset: u64,
    pub delta: u64,
    pub before: u64,
}

/// Add to a number on the device, as the `Add` says that the argument points to.
pub const IOC_ADD: Ioctl = _IOWR::<Add>(MAGIC, 2);
