//! Addresses: the binary forms of `inet` and `cidr`.

use std::net::IpAddr;

/// Address families of the binary form, and how many bits an address has.
const INET: (u8, u8) = (2, 32);
const INET6: (u8, u8) = (3, 128);

/// An address, with or without the length of its network part.
pub(super) fn inet(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (address, prefix) = parse(text)?;
    write(address, prefix, false, out);
    Some(())
}

/// A network: nothing may be set right of its part, as the server demands.
pub(super) fn cidr(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (address, prefix) = parse(text)?;
    let host_bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << (128 - 32),
        IpAddr::V6(address) => address.to_bits(),
    };
    if host_bits.checked_shl(prefix.into()).unwrap_or(0) != 0 {
        return None;
    }
    write(address, prefix, true, out);
    Some(())
}

fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits = family(address).1;
    let prefix = match prefix {
        // As the server has it: digits, and no 0 before others.
        Some(prefix) if prefix.len() > 1 && prefix.starts_with('0') => return None,
        Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().ok()?,
        Some(_) => return None,
        None => bits,
    };
    (prefix <= bits).then_some((address, prefix))
}

fn family(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() { INET } else { INET6 }
}

fn write(address: IpAddr, prefix: u8, is_cidr: bool, out: &mut Vec<u8>) {
    let (family, bits) = family(address);
    // Family, length of the network part, whether it is a cidr, and how many bytes follow.
    out.extend_from_slice(&[family, prefix, is_cidr.into(), bits / 8]);
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}
