// SPDX-License-Identifier: GPL-2.0-only

//! sleeping under a spinlock
//!
//! The vector grows while it is locked.

use kernel::{
    fs::File,
    ioctl::_IO,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_spinlock,
    prelude::*,
    sync::SpinLock,
};

const ZOO_IOC_LOG: u32 = _IO('z' as u32, 0);

module! {
    type: ZooModule,
    name: "zoo_sleep_in_spinlock_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: sleeping under a spinlock",
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
            name: c"zoo_sleep_in_spinlock_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

#[pin_data]
struct Zoo {
    #[pin]
    log: SpinLock<KVec<usize>>,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                log <- new_spinlock!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        if cmd != ZOO_IOC_LOG {
            return Err(ENOTTY);
        }
        me.log.lock().push(arg, GFP_KERNEL)?;
        Ok(0)
    }
}
