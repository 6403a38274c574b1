// SPDX-License-Identifier: GPL-2.0-only

//! off by one at the end
//!
//! The position that equals the size is taken for the last one.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::IovIterSource,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
};

const ZOO_SIZE: usize = 64;

module! {
    type: ZooModule,
    name: "zoo_off_by_one_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: off by one at the end",
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
            name: c"zoo_off_by_one_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

#[pin_data]
struct Zoo {
    #[pin]
    buffer: Mutex<KVec<u8>>,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        let buffer = KVec::zeroed(ZOO_SIZE, GFP_KERNEL)?;

        KBox::pin_init(
            pin_init!(Self {
                buffer <- new_mutex!(buffer),
            }),
            GFP_KERNEL,
        )
    }

    fn write_iter(mut kiocb: Kiocb<'_, Self::Ptr>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let pos = usize::try_from(kiocb.ki_pos())?;
        let mut byte = [0];

        if pos > ZOO_SIZE {
            return Err(ENOSPC);
        }
        if from.copy_from_iter(&mut byte) == 0 {
            return Err(EFAULT);
        }
        kiocb.file().buffer.lock()[pos] = byte[0];
        *kiocb.ki_pos_mut() += 1;
        Ok(1)
    }
}
