//! A small guest: a disk that boots by itself, and the machine that boots it.
//!
//! The disk is one FAT file system with syslinux in its boot sector, a kernel, and an initial file system of busybox and a
//! script. What the script prints comes from a file on the disk, which the boot loader read.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    importer::text,
    support::process::{Process, find},
};

/// Booting takes ten seconds under emulation on a free machine.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir /proc
/bin/busybox mount -t proc proc /proc
for word in $(/bin/busybox cat /proc/cmdline); do
  case $word in token=*) echo \"guest is up: ${word#token=}\" ;; esac
done
/bin/busybox sleep 1
/bin/busybox poweroff -f
";

/// What `tools/install.sh clients` unpacked.
fn part(name: &str) -> Vec<u8> {
    // The guest's directory is beside that of the programs.
    let beside =
        find("crane").and_then(|path| Some(path.parent()?.parent()?.join("guest").join(name)));
    let path = beside.unwrap_or_default();
    fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "read {}: {error}: run tools/install.sh clients",
            path.display()
        )
    })
}

/// Writes a raw disk of 96 MiB that boots and prints `token`.
pub(crate) fn write_disk(dir: &Path, token: &str) -> std::path::PathBuf {
    let path = dir.join("guest.img");
    fs::write(dir.join("vmlinuz"), part("vmlinuz")).unwrap();
    let init = [
        ("bin", 0o040_755, vec![]),
        ("dev", 0o040_755, vec![]),
        ("bin/busybox", 0o100_755, part("busybox")),
        ("init", 0o100_755, INIT.as_bytes().to_vec()),
    ];
    fs::write(dir.join("initrd"), cpio(&init)).unwrap();
    // The kernel measures its timer against the processor, which says nothing on a busy machine under emulation.
    let config = format!(
        "SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nLABEL linux\nKERNEL vmlinuz\nINITRD initrd\n\
         APPEND console=ttyS0 quiet panic=-1 no_timer_check token={token}\n"
    );
    fs::write(dir.join("syslinux.cfg"), config).unwrap();
    fs::File::create(&path).unwrap().set_len(96 << 20).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let program = find(program)
            .unwrap_or_else(|| panic!("{program} is not installed: run tools/install.sh clients"));
        let output = Command::new(&program)
            .args(arguments)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", program.display());
    };
    run("mkfs.vfat", &["-F", "32", "-n", "GUEST", "guest.img"]);
    run(
        "mcopy",
        &["-i", "guest.img", "vmlinuz", "initrd", "syslinux.cfg", "::"],
    );
    run("syslinux", &["--install", "guest.img"]);
    path
}

/// An archive of the form that kernels unpack ("newc"; Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn cpio(entries: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut archive = vec![];
    let end = ("TRAILER!!!", 0, vec![]);
    for (i, (name, mode, content)) in entries.iter().chain([&end]).enumerate() {
        let fields = [
            i as u32,
            *mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        archive.extend(b"070701");
        for field in fields {
            archive.extend(format!("{field:08x}").bytes());
        }
        archive.extend(name.bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// Boots a machine from a disk and waits for what its guest says on the serial console.
pub(crate) fn boot(disk: &Path, format: &str, token: &str) {
    let program = find("qemu-system-x86_64");
    let program = program.unwrap_or_else(|| {
        panic!("qemu-system-x86_64 is not installed: run tools/install.sh clients")
    });
    let mut command = Command::new(program);
    // Emulation everywhere: not every machine that has KVM has one that runs a boot loader.
    let drive = format!("file={},format={format},if=virtio,snapshot=on", text(disk));
    command.args([
        "-accel",
        "tcg",
        "-m",
        "256",
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
    ]);
    command.args(["-serial", "stdio", "-drive", &drive]);
    let mut machine = Process::start(command);
    let expected = format!("guest is up: {token}");
    machine.wait_for(BOOT_LIMIT, |machine| {
        machine.log().contains(&expected).then_some(())
    });
}
