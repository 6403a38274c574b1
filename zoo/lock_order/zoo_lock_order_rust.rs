// SPDX-License-Identifier: GPL-2.0-only

//! lock order inverted
//!
//! To move forth takes one lock first, to move back the other.

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

const ZOO_IOC_FORTH: u32 = _IO('z' as u32, 0);
const ZOO_IOC_BACK: u32 = _IO('z' as u32, 1);

module! {
    type: ZooModule,
    name: "zoo_lock_order_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: lock order inverted",
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
            name: c"zoo_lock_order_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

#[pin_data]
struct Zoo {
    #[pin]
    left: Mutex<i32>,
    #[pin]
    right: Mutex<i32>,
}

impl Zoo {
    fn forth(&self) {
        let mut left = self.left.lock();
        let mut right = self.right.lock();

        *left -= 1;
        *right += 1;
    }

    fn back(&self) {
        let mut right = self.right.lock();
        let mut left = self.left.lock();

        *right -= 1;
        *left += 1;
    }
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                left <- new_mutex!(0),
                right <- new_mutex!(0),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        match cmd {
            ZOO_IOC_FORTH => me.forth(),
            ZOO_IOC_BACK => me.back(),
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}
