// SPDX-License-Identifier: GPL-2.0-only

//! lock taken twice
//!
//! A function that takes the lock calls another one that does.

use kernel::{
    fs::File,
    ioctl::_IO,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
};

const ZOO_IOC_ADD: u32 = _IO('z' as u32, 0);

module! {
    type: ZooModule,
    name: "zoo_lock_twice_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: lock taken twice",
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
            name: c"zoo_lock_twice_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

#[pin_data]
struct Zoo {
    #[pin]
    total: Mutex<u16>,
}

impl Zoo {
    fn total(&self) -> u16 {
        *self.total.lock()
    }

    fn add(&self) -> u16 {
        let mut total = self.total.lock();

        *total = total.wrapping_add(1);
        self.total()
    }
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                total <- new_mutex!(0),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        match cmd {
            ZOO_IOC_ADD => Ok(me.add() as isize),
            _ => Err(ENOTTY),
        }
    }
}
