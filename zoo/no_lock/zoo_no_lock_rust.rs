// SPDX-License-Identifier: GPL-2.0-only

//! no lock at all
//!
//! The count is a plain field of what all threads of a process share.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    ioctl::_IO,
    iov::IovIterDest,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
};

const ZOO_IOC_COUNT: u32 = _IO('z' as u32, 0);

module! {
    type: ZooModule,
    name: "zoo_no_lock_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: no lock at all",
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
            name: c"zoo_no_lock_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

struct Zoo {
    count: u64,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        Ok(KBox::new(Self { count: 0 }, GFP_KERNEL)?)
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let count = kiocb.file().count.to_ne_bytes();

        to.simple_read_from_buffer(kiocb.ki_pos_mut(), &count)
    }

    fn ioctl(me: &Self, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        if cmd != ZOO_IOC_COUNT {
            return Err(ENOTTY);
        }
        me.count += 1;
        Ok(0)
    }
}
