use std::path::Path;

use proptest::prelude::*;

use super::{ChannelError, channel_element, inject_channel, remove_channel};
use crate::{domain_xml::read_facts, vm::VmId};

const LIVE: &str = include_str!("../testdata/live.xml");
const ID: &str = "018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d";
const PATH: &str = "/run/a/vm.sock";
const CHANNEL: &str = "<channel type='unix'><source mode='bind' path='/run/a/vm.sock'/>\
                       <target type='virtio' name='org.infinibay.agent'/></channel>";

fn id() -> VmId {
    ID.parse().unwrap()
}

fn inject(xml: &str) -> Result<super::Injection, ChannelError> {
    inject_channel(xml, id(), Path::new(PATH))
}

/// `{}` in `after` is where the new bytes are; everything else must equal the document before.
fn check(before: &str, after: &str) {
    let injection = inject(before).unwrap_or_else(|e| panic!("{before:?} was refused: {e:?}"));
    assert_eq!(injection.xml, after, "from {before:?}");
    assert_eq!(injection.changed, before != after);
    let again = inject(&injection.xml).unwrap();
    assert!(!again.changed, "a second time changed {after:?}");
    assert_eq!(again.xml, injection.xml);
}

#[test]
fn the_channel_is_written_like_its_neighbours() {
    let table = [
        // Among others, indented by two, four, a tab; line ends of two bytes.
        ("<domain>\n  <devices>\n    <disk/>\n  </devices>\n</domain>\n", "\n", "    ", "  "),
        ("<domain>\n    <devices>\n        <disk/>\n    </devices>\n</domain>", "\n", "        ", "    "),
        ("<domain>\n\t<devices>\n\t\t<disk/>\n\t</devices>\n</domain>", "\n", "\t\t", "\t"),
        ("<domain>\r\n <devices>\r\n  <disk/>\r\n </devices>\r\n</domain>\r\n", "\r\n", "  ", " "),
    ];
    for (before, nl, indent, unit) in table {
        let new = format!(
            "<disk/>{nl}{indent}<channel type='unix'>{nl}{indent}{unit}<source mode='bind' path='{PATH}'/>\
             {nl}{indent}{unit}<target type='virtio' name='org.infinibay.agent'/>{nl}{indent}</channel>"
        );
        check(before, &before.replace("<disk/>", &new));
    }
    // On one line.
    check(
        "<domain><devices><disk/></devices></domain>",
        &format!("<domain><devices><disk/>{CHANNEL}</devices></domain>"),
    );
    // Next to its own kind rather than at the end.
    let other = "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>";
    check(
        &format!("<domain><devices>{other}<disk/></devices></domain>"),
        &format!("<domain><devices>{other}{CHANNEL}<disk/></devices></domain>"),
    );
}

#[test]
fn a_domain_without_devices_gets_them() {
    check("<domain><devices/></domain>", &format!("<domain><devices>{CHANNEL}</devices></domain>"));
    check("<domain><devices /></domain>", &format!("<domain><devices >{CHANNEL}</devices></domain>"));
    check("<domain><devices></devices></domain>", &format!("<domain><devices>{CHANNEL}</devices></domain>"));
    check(
        "<domain><name>a</name></domain>",
        &format!("<domain><name>a</name><devices>{CHANNEL}</devices></domain>"),
    );
    check("<domain/>", &format!("<domain><devices>{CHANNEL}</devices></domain>"));
    check(
        "<domain>\n  <name>a</name>\n  <devices/>\n</domain>",
        "<domain>\n  <name>a</name>\n  <devices>\n    <channel type='unix'>\n      \
         <source mode='bind' path='/run/a/vm.sock'/>\n      \
         <target type='virtio' name='org.infinibay.agent'/>\n    </channel>\n  </devices>\n</domain>",
    );
    check(
        "<domain>\n  <devices>\n    <!-- none -->\n  </devices>\n</domain>",
        "<domain>\n  <devices>\n    <!-- none -->\n    <channel type='unix'>\n      \
         <source mode='bind' path='/run/a/vm.sock'/>\n      \
         <target type='virtio' name='org.infinibay.agent'/>\n    </channel>\n  </devices>\n</domain>",
    );
}

#[test]
fn what_looks_like_ours_elsewhere_is_left_alone() {
    for decoy in [
        format!("<metadata>{CHANNEL}</metadata><devices><x/></devices>"),
        format!("<!--{CHANNEL}--><devices><x/></devices>"),
        format!("<description><![CDATA[{CHANNEL}]]></description><devices><x/></devices>"),
        "<metadata xmlns:d='urn:d'><d:devices><d:channel/></d:devices></metadata><devices><x/></devices>"
            .to_owned(),
    ] {
        let before = format!("<?xml version='1.0' encoding='utf-8'?>\n<domain>{decoy}</domain>");
        check(&before, &before.replace("<x/>", &format!("<x/>{CHANNEL}")));
    }
}

#[test]
fn a_wrong_channel_is_repaired_and_nothing_else_of_it() {
    let target = "<target name=\"org.infinibay.agent\" type=\"virtio\" state='connected'/>";
    let tail = "<address type='virtio-serial' controller='3' bus='0' port='9'/><log file='/l'/>";
    let right = format!("<channel type=\"unix\"><source mode='bind' path='{PATH}'/>{target}{tail}</channel>");
    let table = [
        format!("<channel type=\"unix\"><source mode='bind' path='/other'/>{target}{tail}</channel>"),
        format!("<channel type=\"unix\"><source mode='connect' path='{PATH}'/>{target}{tail}</channel>"),
        format!("<channel type=\"unix\"><source path='{PATH}'/>{target}{tail}</channel>"),
        format!("<channel type=\"unix\"><source mode='bind'/>{target}{tail}</channel>"),
        format!(
            "<channel type=\"tcp\"><source mode='connect' host='h' service='1'/>{target}{tail}</channel>"
        ),
        format!(
            "<channel type=\"udp\"><source mode='bind'/><source mode='connect'/>{target}{tail}</channel>"
        ),
        format!("{right}{right}"),
        format!("{right}<channel type='pty'>{target}</channel>"),
    ];
    for wrong in table {
        check(
            &format!("<domain><devices>{wrong}<x/></devices></domain>"),
            &format!("<domain><devices>{right}<x/></devices></domain>"),
        );
    }
    // Without a source it is written at the end.
    check(
        &format!("<domain><devices><channel>{target}</channel></devices></domain>"),
        &format!(
            "<domain><devices><channel type='unix'>{target}<source mode='bind' path='{PATH}'/></channel></devices></domain>"
        ),
    );
    let unchanged = format!("<domain><devices>{right}</devices></domain>");
    check(&unchanged, &unchanged);
}

#[test]
fn paths_are_escaped_and_the_impossible_refused() {
    let odd = Path::new("/run/a'b\"c<d>&e ü/s.sock");
    let injected = inject_channel(LIVE, id(), odd).unwrap();
    assert_eq!(read_facts(&injected.xml).unwrap().channel.unwrap().path, odd);
    let element = channel_element(odd);
    let wrapped = format!("<domain><name>a</name><uuid>{ID}</uuid><devices>{element}</devices></domain>");
    assert_eq!(read_facts(&wrapped).unwrap().channel.unwrap().path, odd);
    let long = format!("/{}", "a".repeat(107));
    for bad in ["relative", "", "/a\nb", "/a\tb", "/a\u{1}b", "/a\u{ffff}", long.as_str()] {
        let refused = inject_channel(LIVE, id(), Path::new(bad));
        assert!(matches!(refused, Err(ChannelError::SocketPath { .. })), "{bad:?}: {refused:?}");
    }
    assert!(inject_channel(LIVE, id(), Path::new(&long[..107])).is_ok());
}

#[test]
fn another_vms_document_is_refused() {
    let stranger = VmId::generate();
    let refused = inject_channel(LIVE, stranger, Path::new(PATH)).unwrap_err();
    assert!(matches!(refused, ChannelError::OtherDomain { expected, .. } if expected == stranger));
    for bad in ["", "zz", "018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5", "018f3c5e-7a10-7cc2-9d1b-6f0f3a2b4c5d0"] {
        let xml = format!("<domain><uuid>{bad}</uuid><devices/></domain>");
        assert!(matches!(inject(&xml), Err(ChannelError::OtherDomain { .. })), "{bad:?} was accepted");
    }
    let spelled = format!("<domain><uuid> {} </uuid><devices/></domain>", ID.to_uppercase());
    assert!(inject(&spelled).unwrap().changed);
}

#[test]
fn what_is_no_document_of_a_domain_is_refused() {
    for not_domain in
        ["<network/>", "<domainsnapshot><domain/></domainsnapshot>", "<domain xmlns='urn:a'/>", "<Domain/>"]
    {
        assert!(matches!(inject(not_domain), Err(ChannelError::NotADomain(_))), "{not_domain}");
    }
    let table = [
        "",
        " ",
        "domain",
        "<domain",
        "<domain>",
        "<domain></domain",
        "<domain></devices>",
        "<domain></domain>x",
        "x<domain/>",
        "<domain/><domain/>",
        "<domain/></domain>",
        "<domain/>&amp;",
        "<domain/><![CDATA[]]>",
        "<domain><devices></domain></devices>",
        "<domain a='1' a='2'/>",
        "<domain a=1/>",
        "<domain a/>",
        "<domain a='<'/>",
        "<domain a='&x;'/>",
        "<domain a='&#0;'/>",
        "<domain a='1'b='2'/>",
        "<domain>&</domain>",
        "<domain>&x;</domain>",
        "<domain>&#1;</domain>",
        "<domain>]]></domain>",
        "<domain>\u{0}</domain>",
        "<domain><1/></domain>",
        "<domain>< a/></domain>",
        "<domain><!-- a -- b --></domain>",
        "<domain/><?xml version='1.0'?>",
        " <?xml version='1.0'?><domain/>",
        "<domain><?XML a?></domain>",
        "<?xml version='1.0' encoding='ISO-8859-1'?><domain/>",
        "<?xml version='7'?><domain/>",
        "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain/>",
        "<domain><!DOCTYPE domain></domain>",
    ];
    for xml in table {
        assert!(matches!(inject(xml), Err(ChannelError::Malformed(_))), "{xml:?}: {:?}", inject(xml));
        assert!(matches!(remove_channel(xml), Err(ChannelError::Malformed(_))), "{xml:?}");
    }
    let deep = format!("{}{}", "<domain>".repeat(300), "</domain>".repeat(300));
    assert!(matches!(inject(&deep), Err(ChannelError::Malformed(_))));
    for good in [
        "\u{feff}<domain/>",
        "<!DOCTYPE domain><domain/>",
        "<!-- a --><domain/><?p q?>\n",
        "<domain></domain >",
    ] {
        assert!(inject(good).is_ok(), "{good:?}: {:?}", inject(good));
    }
}

#[test]
fn removal_takes_back_what_was_put_in() {
    let without = remove_channel(LIVE).unwrap();
    assert!(without.changed);
    let facts = read_facts(&without.xml).unwrap();
    assert_eq!(facts.channel, None);
    assert!(
        without.xml.contains("path='/old'") && without.xml.contains("path='/evil'"),
        "a decoy was taken out"
    );
    assert!(!remove_channel(&without.xml).unwrap().changed);
    let lines = |xml: &str| xml.lines().count();
    assert_eq!(lines(LIVE) - lines(&without.xml), 6, "the channel's six lines, no more");
    // It was the last channel, so it returns to its place.
    let again = inject(&without.xml).unwrap();
    assert_eq!(remove_channel(&again.xml).unwrap().xml, without.xml);
}

/// Pieces of XML that people put between and into elements.
fn filler() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("\n".to_owned()),
        Just("\r\n\t".to_owned()),
        Just("<!-- </devices> <channel> -->".to_owned()),
        Just("<![CDATA[</domain>]]>".to_owned()),
        Just("<?pi </domain>?>".to_owned()),
        Just("&lt;&#x41;&amp;".to_owned()),
        "[ \n]{0,4}[a-zä€𝄞]{0,4}".prop_map(|s| s),
    ]
}

fn element() -> impl Strategy<Value = String> {
    let attributes =
        prop_oneof![Just(""), Just(" a='/>'"), Just(" b = \"'/>]]\"\n"), Just(" xmlns:q='urn:q'")];
    let leaf =
        (filler(), "[a-z]{1,5}", attributes, any::<bool>()).prop_map(|(text, name, attributes, closed)| {
            if closed {
                format!("{text}<{name}{attributes}/>")
            } else {
                format!("<{name}{attributes}>{text}</{name}>")
            }
        });
    leaf.prop_recursive(3, 12, 4, |inner| {
        ("[a-z]{1,5}", prop::collection::vec((inner, filler()), 0..4)).prop_map(|(name, children)| {
            let children: String = children.into_iter().map(|(child, text)| child + &text).collect();
            format!("<x{name}>{children}</x{name}>")
        })
    })
}

proptest! {
    #[test]
    fn only_an_insertion_and_only_once(
        declaration in prop_oneof![Just(""), Just("<?xml version=\"1.0\"?>\n"), Just("\u{feff}")],
        head in element(), devices in prop::collection::vec(element(), 1..4), tail in element(),
        end in prop_oneof![Just(""), Just("\n"), Just("\r\n<!-- end -->")],
    ) {
        let devices = devices.concat();
        let xml = format!("{declaration}<domain type='kvm'>{head}<devices>{devices}</devices>{tail}</domain>{end}");
        let injection = inject(&xml).unwrap();
        prop_assert!(injection.changed);
        // What is new stands in one piece; without it the old document is left, byte for byte.
        let prefix = xml.bytes().zip(injection.xml.bytes()).take_while(|(a, b)| a == b).count();
        let suffix = xml.len() - prefix;
        prop_assert!(injection.xml.as_bytes()[injection.xml.len() - suffix..] == xml.as_bytes()[prefix..]);
        let again = inject(&injection.xml).unwrap();
        prop_assert!(!again.changed);
        prop_assert_eq!(&again.xml, &injection.xml);
        prop_assert_eq!(remove_channel(&injection.xml).unwrap().xml, xml);
    }

    #[test]
    fn no_text_makes_it_panic(xml in "\\PC{0,60}", cut in 0..LIVE.len(), junk in "[<>/'\"&;!?\\[\\]a-z -]{0,6}") {
        let _ = inject(&xml);
        let _ = inject(&format!("<domain>{xml}</domain>"));
        let cut = (0..=cut).rev().find(|&at| LIVE.is_char_boundary(at)).unwrap_or(0);
        let spliced = format!("{}{junk}{}", &LIVE[..cut], &LIVE[cut..]);
        if let Ok(injection) = inject(&spliced) {
            prop_assert!(!inject(&injection.xml).unwrap().changed);
        }
    }
}
