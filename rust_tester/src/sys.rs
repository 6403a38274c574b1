// SPDX-License-Identifier: GPL-2.0-only
//! The door to the kernel: one system call each, no Python, no loop.
//!
//! Twin of `c_tester/src/sys.c`: the same names, order and comments. Everything here may run
//! without the interpreter's lock, so a failure is a number. The only file with unsafe code.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed};
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{slice_from_raw_parts_mut, with_exposed_provenance, with_exposed_provenance_mut};

use crate::uapi;

/// Only open(2) with `O_CREAT` or `O_TMPFILE` reads it.
const CREATE_MODE: libc::c_uint = 0o600;

const NS_PER_S: i64 = 1_000_000_000;
const US_PER_S: f64 = 1e6;

/// Longer than any text that the C library has for an errno.
const ERROR_TEXT_SIZE: usize = 128;

/// Why a system call failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const EINTR: Self = Self(libc::EINTR);
    pub const EINVAL: Self = Self(libc::EINVAL);
    pub const EIO: Self = Self(libc::EIO);
    pub const ENOMEM: Self = Self(libc::ENOMEM);

    fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

/// Which way bytes move.
#[derive(Clone, Copy)]
pub enum Direction {
    /// From the device to user space.
    Read,
    /// From user space to the device.
    Write,
}

/// A request to move bytes between the device and user space.
#[derive(Clone, Copy)]
pub struct Transfer {
    pub direction: Direction,
    /// Not checked: the kernel's answer to a bad one is under test.
    pub address: usize,
    pub size: usize,
    /// Bytes; without one the file's position counts.
    pub offset: Option<i64>,
}

/// What the kernel has charged a process, in seconds.
pub struct ProcessTimes {
    pub user_s: f64,
    pub system_s: f64,
}

fn result_or_errno(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}

pub fn open(path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the path ends with a null byte and outlives the call.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, CREATE_MODE) };
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn transfer(fd: BorrowedFd<'_>, request: &Transfer) -> Result<usize, Errno> {
    let fd = fd.as_raw_fd();
    let size = request.size;
    let from: *const c_void = with_exposed_provenance(request.address);
    let to: *mut c_void = with_exposed_provenance_mut(request.address);
    // SAFETY: the kernel checks the address. Where it is that of a buffer, the caller keeps the
    // buffer alive and lends it to nobody else; a raw one is the Python caller's business.
    let moved = unsafe {
        match (request.direction, request.offset) {
            (Direction::Write, Some(offset)) => libc::pwrite(fd, from, size, offset),
            (Direction::Write, None) => libc::write(fd, from, size),
            (Direction::Read, Some(offset)) => libc::pread(fd, to, size, offset),
            (Direction::Read, None) => libc::read(fd, to, size),
        }
    };
    result_or_errno(moved)
}

pub fn lseek(fd: BorrowedFd<'_>, offset: i64, whence: i32) -> Result<i64, Errno> {
    // SAFETY: no memory is involved.
    let position = unsafe { libc::lseek(fd.as_raw_fd(), offset, whence) };
    if position < 0 {
        return Err(Errno::last());
    }
    Ok(position)
}

pub fn ioctl(fd: BorrowedFd<'_>, request: u64, argument: u64) -> Result<i32, Errno> {
    // SAFETY: the kernel checks the argument; what it means is the caller's business.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if result < 0 {
        return Err(Errno::last());
    }
    Ok(result)
}

/// An ioctl that writes a number to where its argument points.
pub fn ioctl_number(fd: BorrowedFd<'_>, request: u64) -> Result<u64, Errno> {
    let mut number = 0_u64;
    // SAFETY: the argument is the address of a live u64, and the request writes no more.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut number) };
    if result < 0 {
        return Err(Errno::last());
    }
    Ok(number)
}

/// Add to a number on the device; return what it was before.
pub fn ioctl_add(fd: BorrowedFd<'_>, offset: u64, delta: u64) -> Result<u64, Errno> {
    let mut add = uapi::Add {
        offset,
        delta,
        before: 0,
    };
    // SAFETY: the argument is the address of a live `Add`, and the request writes no more.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), uapi::IOC_ADD, &raw mut add) };
    if result < 0 {
        return Err(Errno::last());
    }
    Ok(add.before)
}

/// It fails only for a bad clock or address.
pub fn clock_ns() -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the address is that of a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * NS_PER_S + now.tv_nsec
}

#[allow(clippy::cast_precision_loss)] // exact up to 2**53 seconds
fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / US_PER_S
}

pub fn process_times() -> ProcessTimes {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the address is that of a live rusage. It fails only for a bad address or selector.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: all of its fields are numbers, for which zero is a value.
    let usage = unsafe { usage.assume_init() };
    ProcessTimes {
        user_s: seconds(usage.ru_utime),
        system_s: seconds(usage.ru_stime),
    }
}

/// Memory that reads as zero and that the kernel may not have provided yet, as `vec![0; size]`;
/// but where there is none, that would abort.
pub fn zeroed(size: usize) -> Result<Vec<u8>, Errno> {
    let layout = Layout::array::<u8>(size).map_err(|_| Errno::ENOMEM)?;
    if size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(Errno::ENOMEM);
    }
    // SAFETY: allocated just now by the global allocator, `size` bytes, all of them zero.
    let memory = unsafe { Box::from_raw(slice_from_raw_parts_mut(memory, size)) };
    Ok(memory.into_vec())
}

/// What the C library says about an errno; the C twin gets it through Python.
pub fn error_text(errno: Errno) -> String {
    let mut text = [0_u8; ERROR_TEXT_SIZE];
    // SAFETY: the address and the size are those of a live buffer; it ends the text with a null.
    unsafe { libc::strerror_r(errno.0, text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
