// SPDX-License-Identifier: GPL-2.0-only

//! Count with threads on one `&mut File`, no lock.
//!
//! The driver's lock makes each call atomic; an increment is two calls.

use std::fs::{File, OpenOptions};
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::thread;

fn count_up(file: &mut File, increments: u64) -> Result<()> {
    let mut number = [0; 8];

    for _ in 0..increments {
        file.read_exact_at(&mut number, 0)?;
        number = (u64::from_ne_bytes(number) + 1).to_ne_bytes();
        file.write_all_at(&number, 0)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let threads: u64 = arguments[2].parse().expect("a number of threads");
    let increments: u64 = arguments[3].parse().expect("a number of increments");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&arguments[1])?;
    let mut number = [0; 8];

    file.write_all_at(&number, 0)?;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| count_up(&mut file, increments).expect("the device answers"));
        }
    });
    file.read_exact_at(&mut number, 0)?;
    println!("{}", u64::from_ne_bytes(number));
    Ok(())
}
