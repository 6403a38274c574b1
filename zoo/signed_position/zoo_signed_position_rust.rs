// SPDX-License-Identifier: GPL-2.0-only

//! signed and unsigned mixed up in the position
//!
//! A position of 64 bits becomes an i32, and a large one becomes negative.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::IovIterDest,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
};

const ZOO_SIZE: usize = 4096;

module! {
    type: ZooModule,
    name: "zoo_signed_position_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: signed and unsigned mixed up in the position",
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
            name: c"zoo_signed_position_rust",
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

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let begin = kiocb.ki_pos() as i32;

        if begin >= ZOO_SIZE as i32 {
            return Ok(0);
        }
        let count = to.copy_to_iter(&kiocb.file().buffer.lock()[begin as usize..]);
        *kiocb.ki_pos_mut() += count as i64;
        Ok(count)
    }
}
