//! Known answers of ciphers.

/// CBC over a whole message.
pub(crate) struct Message {
    /// Keyword of the row.
    pub(crate) row: &'static str,
    pub(crate) source: &'static str,
    pub(crate) key: &'static str,
    pub(crate) iv: &'static str,
    pub(crate) plain: &'static str,
    pub(crate) cipher: &'static str,
}

pub(crate) static MESSAGES: &[Message] = &[
    Message {
        row: "aes128",
        source: "RFC 3602 4, case 2",
        key: "c286696d887c9aa0611bbb3e2025a45a",
        iv: "562e17996d093d28ddb3ba695a2e6f58",
        plain: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        cipher: "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
    },
    Message {
        row: "aes128",
        source: "NIST SP 800-38A F.2.1",
        key: "2b7e151628aed2a6abf7158809cf4f3c",
        iv: "000102030405060708090a0b0c0d0e0f",
        plain: "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc119\
                1a0a52eff69f2445df4f9b17ad2b417be66c3710",
        cipher: "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b273bed6b8e3c1743b7116e69e\
                 222295163ff1caa1681fac09120eca307586e1a7",
    },
    Message {
        row: "aes192",
        source: "NIST SP 800-38A F.2.3",
        key: "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
        iv: "000102030405060708090a0b0c0d0e0f",
        plain: "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc119\
                1a0a52eff69f2445df4f9b17ad2b417be66c3710",
        cipher: "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a571b242012fb7ae07fa9baac\
                 3df102e008b0e27988598881d920a9e64f5615cd",
    },
    Message {
        row: "aes256",
        source: "NIST SP 800-38A F.2.5",
        key: "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        iv: "000102030405060708090a0b0c0d0e0f",
        plain: "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc119\
                1a0a52eff69f2445df4f9b17ad2b417be66c3710",
        cipher: "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e263\
                 04231461b2eb05e2c39be9fcda6c19078c6a9d1b",
    },
    Message {
        row: "3des",
        source: "NIST SP 800-67 B.1, one block of ECB as CBC with IV 0",
        key: "0123456789abcdef23456789abcdef01456789abcdef0123",
        iv: "0000000000000000",
        plain: "5468652071756663",
        cipher: "a826fd8ce53b855f",
    },
    Message {
        row: "3des",
        source: "NIST SP 800-67 B.1, one block of ECB as CBC with IV 0",
        key: "0123456789abcdef23456789abcdef01456789abcdef0123",
        iv: "0000000000000000",
        plain: "6b2062726f776e20",
        cipher: "cce21c8112256fe6",
    },
    Message {
        row: "3des",
        source: "NIST SP 800-67 B.1, one block of ECB as CBC with IV 0",
        key: "0123456789abcdef23456789abcdef01456789abcdef0123",
        iv: "0000000000000000",
        plain: "666f78206a756d70",
        cipher: "68d5c05dd9b6b900",
    },
    Message {
        row: "3des",
        source: "computed with OpenSSL 3.0 (openssl enc -des-ede3-cbc -nopad)",
        key: "0123456789abcdef23456789abcdef01456789abcdef0123",
        iv: "f69f2445df4f9b17",
        plain: "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc119\
                1a0a52eff69f2445df4f9b17ad2b417be66c3710",
        cipher: "2079c3d53aa763e193b79e2569ab5262516570481f25b50f73c0bda85c8e0da79bd86425fae429fdbd65a7a2\
                 1b6e5d20925d8b0ef919a428154b96ed90f2bc1e",
    },
];

/// An ESP packet. Where the source has no SPI (a cipher that needs an integrity
/// algorithm), that is left to the test, and so is the ICV.
pub(crate) struct Packet {
    /// Keyword of the row.
    pub(crate) row: &'static str,
    pub(crate) source: &'static str,
    /// Key, then salt.
    pub(crate) keymat: &'static str,
    pub(crate) spi: &'static str,
    pub(crate) sequence: u64,
    pub(crate) esn: bool,
    pub(crate) iv: &'static str,
    pub(crate) plain: &'static str,
    pub(crate) cipher: &'static str,
    pub(crate) icv: &'static str,
}

pub(crate) static PACKETS: &[Packet] = &[
    Packet {
        row: "aes128ctr",
        source: "RFC 3686 6, test vector 1",
        keymat: "ae6852f8121067cc4bf7a5765577f39e00000030",
        spi: "",
        sequence: 0x0,
        esn: false,
        iv: "0000000000000000",
        plain: "53696e676c6520626c6f636b206d7367",
        cipher: "e4095d4fb7a7b3792d6175a3261311b8",
        icv: "",
    },
    Packet {
        row: "aes128ctr",
        source: "RFC 3686 6, test vector 2",
        keymat: "7e24067817fae0d743d6ce1f32539163006cb6db",
        spi: "",
        sequence: 0xc0543b59da48d90b,
        esn: false,
        iv: "c0543b59da48d90b",
        plain: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        cipher: "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
        icv: "",
    },
    Packet {
        row: "aes128ctr",
        source: "RFC 3686 6, test vector 3",
        keymat: "7691be035e5020a8ac6e618529f9a0dc00e0017b",
        spi: "",
        sequence: 0x27777f3f4a1786f0,
        esn: false,
        iv: "27777f3f4a1786f0",
        plain: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
        cipher: "c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f",
        icv: "",
    },
    Packet {
        row: "aes192ctr",
        source: "RFC 3686 6, test vector 4",
        keymat: "16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb7851500000048",
        spi: "",
        sequence: 0x36733c147d6d93cb,
        esn: false,
        iv: "36733c147d6d93cb",
        plain: "53696e676c6520626c6f636b206d7367",
        cipher: "4b55384fe259c9c84e7935a003cbe928",
        icv: "",
    },
    Packet {
        row: "aes192ctr",
        source: "RFC 3686 6, test vector 6",
        keymat: "02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe0007bdfd",
        spi: "",
        sequence: 0x5cbd60278dcc0912,
        esn: false,
        iv: "5cbd60278dcc0912",
        plain: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
        cipher: "96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935",
        icv: "",
    },
    Packet {
        row: "aes256ctr",
        source: "RFC 3686 6, test vector 7",
        keymat: "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c10400000060",
        spi: "",
        sequence: 0xdb5672c97aa8f0b2,
        esn: false,
        iv: "db5672c97aa8f0b2",
        plain: "53696e676c6520626c6f636b206d7367",
        cipher: "145ad01dbf824ec7560863dc71e3e0c0",
        icv: "",
    },
    Packet {
        row: "aes256ctr",
        source: "RFC 3686 6, test vector 9",
        keymat: "ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d001cc5b7",
        spi: "",
        sequence: 0x51a51d70a1c11148,
        esn: false,
        iv: "51a51d70a1c11148",
        plain: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
        cipher: "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8",
        icv: "",
    },
    Packet {
        row: "aes128gcm16",
        source: "draft-mcgrew-gcm-test-01 4",
        keymat: "4c80cdefbb5d10da906ac73c3613a6342e443b68",
        spi: "00004321",
        sequence: 0x8765432100000000,
        esn: true,
        iv: "4956ed7e3b244cfe",
        plain: "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f75\
                6470037369700963796265726369747902646b000021000101020201",
        cipher: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1\
                 f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732",
        icv: "459018148f6cbe722fd04796562dfdb4",
    },
    Packet {
        row: "aes128gcm16",
        source: "draft-mcgrew-gcm-test-01 4",
        keymat: "feffe9928665731c6d6a8f9467308308cafebabe",
        spi: "0000a5f8",
        sequence: 0xa,
        esn: false,
        iv: "facedbaddecaf888",
        plain: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100000100000000000003736970\
                0963796265726369747902646b00000100010001",
        cipher: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0e\
                 ec416642cfbb85a5b47e48a4ec3b9ba95d918bd1",
        icv: "83b70d3aa8bc6ee4c309e9d85a41ad4a",
    },
    Packet {
        row: "aes128gcm16",
        source: "draft-mcgrew-gcm-test-01 4",
        keymat: "7d773d00c144c525ac619d18c84a3f47d9664267",
        spi: "335467ae",
        sequence: 0xffffffff,
        esn: false,
        iv: "43457e9182443bc6",
        plain: "01020201",
        cipher: "437f866b",
        icv: "cb3f699fe9b0822bac961c4504bef270",
    },
    Packet {
        row: "aes192gcm16",
        source: "draft-mcgrew-gcm-test-01 4",
        keymat: "feffe9928665731c6d6a8f9467308308feffe9928665731ccafebabe",
        spi: "0000a5f8",
        sequence: 0xa,
        esn: false,
        iv: "facedbaddecaf888",
        plain: "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
        cipher: "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc77",
        icv: "95457b9652037f5318027b5b4cd7a636",
    },
    Packet {
        row: "aes256gcm16",
        source: "draft-mcgrew-gcm-test-01 4",
        keymat: "abbccddef00112233445566778899aababbccddef00112233445566778899aab11223344",
        spi: "4a2cbfe3",
        sequence: 0x2,
        esn: false,
        iv: "0102030405060708",
        plain: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b4\
                0101040201020201",
        cipher: "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f054565\
                 9f14e99def842d8e",
        icv: "b335f4eecfdbf831824b4c4915956c96",
    },
    Packet {
        row: "aes256gcm16",
        source: "draft-mcgrew-gcm-test-01 4",
        keymat: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f726569617475726e",
        spi: "796b6963",
        sequence: 0xffffffffffffffff,
        esn: true,
        iv: "333021696765746d",
        plain: "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f70\
                7172737401020201",
        cipher: "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458f\
                 b57dbe821dcc63b9",
        icv: "d0937ba2945f669368661a329fb4c053",
    },
    Packet {
        row: "null",
        source: "RFC 2410 2.5",
        keymat: "",
        spi: "",
        sequence: 0x1,
        esn: false,
        iv: "",
        plain: "0123456789abcdef",
        cipher: "0123456789abcdef",
        icv: "",
    },
];
