// SPDX-License-Identifier: GPL-2.0-only

//! leak on the error path
//!
//! Where the copy fails, nobody frees what it was to fill.

use kernel::{
    fs::File,
    ioctl::_IO,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

const ZOO_IOC_CHECK: u32 = _IO('z' as u32, 0);
const ZOO_SIZE: usize = 256;

module! {
    type: ZooModule,
    name: "zoo_leak_on_error_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: leak on the error path",
    license: "GPL",
}

#[pin_data]
struct ZooModule {
    #[pin]
    _registration: MiscDeviceRegistration<Zoo>,
}

impl kernel::InPlaceModule for ZooModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let options = MiscDeviceOptions {
            name: c"zoo_leak_on_error_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

fn check(arg: usize) -> Result<isize> {
    let mut buffer = KVec::zeroed(ZOO_SIZE, GFP_KERNEL)?;

    UserSlice::new(UserPtr::from_addr(arg), ZOO_SIZE)
        .reader()
        .read_slice(&mut buffer)?;
    Ok(buffer[0] as isize)
}

struct Zoo;

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        Ok(KBox::new(Self, GFP_KERNEL)?)
    }

    fn ioctl(_me: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            ZOO_IOC_CHECK => check(arg),
            _ => Err(ENOTTY),
        }
    }
}
