# SPDX-License-Identifier: GPL-2.0-only
"""Write a Linux kernel module twice, hold both to one matrix, see what each costs.

This file stays empty of imports: the program inside the VM imports the package too, with
nothing but the standard library, on an emulated processor.
"""
