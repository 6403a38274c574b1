// SPDX-License-Identifier: GPL-2.0-only

//! infinite loop on a signal
//!
//! To be woken by a signal looks like being woken for nothing, so it waits again.

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
    new_condvar, new_mutex,
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    },
};

module! {
    type: ZooModule,
    name: "zoo_signal_loop_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: infinite loop on a signal",
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
            name: c"zoo_signal_loop_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

#[pin_data]
struct Zoo {
    #[pin]
    ready: Mutex<bool>,
    #[pin]
    queue: CondVar,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                ready <- new_mutex!(false),
                queue <- new_condvar!(),
            }),
            GFP_KERNEL,
        )
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, _to: &mut IovIterDest<'_>) -> Result<usize> {
        let me = kiocb.file();
        let mut ready = me.ready.lock();

        while !*ready {
            let _ = me.queue.wait_interruptible(&mut ready);
        }
        Ok(0)
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let me = kiocb.file();

        *me.ready.lock() = true;
        me.queue.notify_all();
        Ok(from.len())
    }
}
