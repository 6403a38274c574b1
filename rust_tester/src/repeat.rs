// SPDX-License-Identifier: GPL-2.0-only
//! Many equal calls with next to nothing between them, for whoever counts from outside what they
//! cost.
//!
//! Twin of `c_tester/src/repeat.c`: the same names, order and comments.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use crate::sys::{self, Direction, Errno, Transfer};

/// What is repeated.
#[derive(Clone, Copy)]
pub enum Operation {
    Move {
        direction: Direction,
        at: bool,
    },
    /// `IOC_ADD` of 1 at the request's offset; moves no bytes.
    Add,
}

impl Operation {
    pub fn of(name: &str) -> Option<Self> {
        let (direction, at) = match name {
            "read" => (Direction::Read, false),
            "write" => (Direction::Write, false),
            "pread" => (Direction::Read, true),
            "pwrite" => (Direction::Write, true),
            "add" => return Some(Self::Add),
            _ => return None,
        };
        Some(Self::Move { direction, at })
    }
}

/// A run of calls; it can be stopped by a signal and taken up again.
pub struct RepeatRun {
    /// Of the next call; `None` adds.
    request: Option<Transfer>,
    offset: i64,
    size: usize,
    /// How far the next call's buffer lies behind this one's.
    stride: usize,
    calls: usize,
    done: usize,
}

impl RepeatRun {
    pub fn new(
        operation: Operation,
        address: usize,
        size: usize,
        stride: usize,
        offset: i64,
        calls: usize,
    ) -> Self {
        let request = match operation {
            Operation::Add => None,
            Operation::Move { direction, at } => Some(Transfer {
                direction,
                address,
                size,
                offset: at.then_some(offset),
            }),
        };
        Self {
            request,
            offset,
            size,
            stride,
            calls,
            done: 0,
        }
    }

    fn call_once(&self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        let Some(request) = &self.request else {
            sys::ioctl_add(fd, u64::from_ne_bytes(self.offset.to_ne_bytes()), 1)?;
            return Ok(self.size);
        };
        sys::transfer(fd, request)
    }

    /// Make the calls that are left. Returns what the last call moved; a result that is not the
    /// size ended the run.
    pub fn calls(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut moved = self.size;
        while self.done < self.calls && moved == self.size {
            moved = self.call_once(fd)?;
            if let Some(request) = &mut self.request {
                request.address = request.address.wrapping_add(self.stride);
            }
            self.done += 1;
        }
        Ok(moved)
    }
}

/// A run of openings, each closed at once.
pub struct RepeatOpenRun<'path> {
    pub path: &'path CStr,
    pub flags: i32,
    pub calls: usize,
    pub done: usize,
}

impl RepeatOpenRun<'_> {
    /// Open and close as often as is left.
    pub fn calls(&mut self) -> Result<(), Errno> {
        while self.done < self.calls {
            drop(sys::open(self.path, self.flags)?);
            self.done += 1;
        }
        Ok(())
    }
}
