// SPDX-License-Identifier: GPL-2.0-only

//! format string
//!
//! The caller's text is used as the format of what is kept.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    str::CString,
    sync::Mutex,
};

module! {
    type: ZooModule,
    name: "zoo_format_string_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: format string",
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
            name: c"zoo_format_string_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

#[pin_data]
struct Zoo {
    #[pin]
    label: Mutex<Option<CString>>,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                label <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let me = kiocb.file();
        let label = me.label.lock();
        let bytes = label.as_ref().map_or(&[][..], |label| label.to_bytes());

        to.simple_read_from_buffer(kiocb.ki_pos_mut(), bytes)
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut bytes = KVec::new();
        let count = from.copy_from_iter_vec(&mut bytes, GFP_KERNEL)?;
        let text = core::str::from_utf8(&bytes)?;

        *kiocb.file().label.lock() = Some(CString::try_from_fmt(fmt!(text))?);
        Ok(count)
    }
}
