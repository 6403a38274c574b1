// SPDX-License-Identifier: GPL-2.0-only
//! The ioctl numbers, which `c_module/mdriver.h` defines: the one place where Rust repeats them.

use libc::{_IO, _IOR, Ioctl};

/// `MDRIVER_IOC_MAGIC`.
const MAGIC: u32 = 0xDC;

/// Size of the device in bytes, written to the `u64` that the argument points to.
pub const IOC_SIZE: Ioctl = _IOR::<u64>(MAGIC, 0);

/// Make every byte zero; no argument.
pub const IOC_CLEAR: Ioctl = _IO(MAGIC, 1);
