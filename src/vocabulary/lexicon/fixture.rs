//! A word net of a few handwritten lines, in the format of the real one.

use super::{Lexicon, LexiconError, read::Sources};

/// Two lines of licence, as the real files begin.
const HEADER: &str = "  1 Handwritten for the tests.  \n  2 No part of WordNet.  \n";

pub(super) const DATA: &str = "\
00000010 03 n 01 entity 0 000 | root
00000020 03 n 02 object 0 physical_object 0 001 @ 00000010 n 0000 | tangible
00000030 03 n 01 whole 0 001 @ 00000020 n 0000 | a whole
00000040 03 n 01 artifact 0 001 @ 00000030 n 0000 | made | by hand
00000050 06 n 01 furniture 0 001 @ 00000040 n 0000 | for a room
00000060 06 n 01 seat 0 001 @ 00000050 n 0000 | to sit on
00000070 06 n 01 chair 0 002 @ 00000060 n 0000 ~ 00000080 n 0000 | with a back
00000080 06 n 01 armchair 0 001 @ 00000070 n 0000 | with arms
00000090 06 n 02 stool 0 tabouret 0 001 @ 00000060 n 0000 | no back
00000100 06 n 01 table 0 001 @ 00000050 n 0000 | with a top
00000110 06 n 02 dining_table 0 dinner-table 0 001 @ 00000100 n 0000 | to eat at
00000120 10 n 01 table 1 001 @ 00000010 n 0000 | rows and columns
00000130 06 n 01 container 0 001 @ 00000040 n 0000 | holds things
00000140 06 n 02 mug 0 noggin 0 003 @ 00000130 n 0000 ;u 00000400 n 0201 + 00000999 v 0101 | with a handle
00000150 06 n 01 coffee_mug 0 001 @ 00000140 n 0000 | for coffee
00000160 06 n 02 glass 0 drinking_glass 0 001 @ 00000130 n 0000 | to drink from
00000170 06 n 03 spectacles 0 glasses 0 Lorgnons 0 001 @ 00000040 n 0000 | to see with
00000180 06 n 02 mouse 1 computer_mouse 0 001 @ 00000190 n 0000 | moves a cursor
00000190 06 n 01 input_device 0 001 @ 00000040 n 0000 | for a computer
00000200 06 n 01 keyboard 0 001 @ 00000190 n 0000 | to type on
00000210 03 n 02 animal 0 beast 0 001 @ 00000030 n 0000 | alive
00000220 05 n 01 mouse 0 001 @ 00000225 n 0000 | small
00000225 05 n 01 rodent 0 001 @ 00000210 n 0000 | gnaws
00000230 05 n 01 rat 0 001 @ 00000225 n 0000 | larger
00000240 03 n 01 person 0 001 @ 00000030 n 0000 | somebody
00000250 18 n 02 chairman 0 chair 0 001 @ 00000240 n 0000 | presides
00000260 14 n 01 men 0 001 @ 00000010 n 0000 | work force
00000270 18 n 01 man 0 001 @ 00000240 n 0000 | an adult
00000280 06 n 01 tower 0 001 @ 00000040 n 0000 | tall
00000290 06 n 01 Leaning_Tower 0 001 @i 00000280 n 0000 | in Pisa
00000300 10 n 01 book 0 001 @ 00000040 n 0000 | to read
00000400 10 n 01 slang 0 001 @ 00000010 n 0000 | not proposed
";

pub(super) const INDEX: &str = "\
animal n 1 0 1 1 00000210
armchair n 1 1 @ 1 0 00000080
artifact n 1 0 1 0 00000040
beast n 1 0 1 1 00000210
book n 1 0 1 1 00000300
chair n 2 0 2 1 00000070 00000250
chairman n 1 0 1 1 00000250
coffee_mug n 1 0 1 0 00000150
computer_mouse n 1 0 1 0 00000180
container n 1 0 1 1 00000130
dining_table n 1 0 1 0 00000110
dinner-table n 1 0 1 0 00000110
drinking_glass n 1 0 1 0 00000160
entity n 1 0 1 0 00000010
furniture n 1 0 1 1 00000050
glass n 1 0 1 1 00000160
glasses n 1 0 1 1 00000170
input_device n 1 0 1 0 00000190
keyboard n 1 0 1 0 00000200
leaning_tower n 1 0 1 0 00000290
lorgnons n 1 0 1 0 00000170
man n 1 0 1 1 00000270
men n 1 0 1 1 00000260
mouse n 2 0 2 1 00000220 00000180
mug n 1 0 1 0 00000140
noggin n 1 0 1 0 00000140
object n 1 0 1 1 00000020
person n 1 0 1 1 00000240
physical_object n 1 0 1 0 00000020
rat n 1 0 1 0 00000230
rodent n 1 0 1 0 00000225
seat n 1 0 1 1 00000060
slang n 1 0 1 0 00000400
spectacles n 1 0 1 0 00000170
stool n 1 0 1 0 00000090
table n 2 2 @ ~ 2 2 00000120 00000100
tabouret n 1 0 1 0 00000090
tower n 1 0 1 0 00000280
whole n 1 0 1 0 00000030
";

pub(super) const EXCEPTIONS: &str = "men man\nmice mouse\nunknowns unheard_of\n";
pub(super) const COUNTS: &str = "\
animal%1:03:00:: 1 5
chair%1:06:00:: 1 9
container%1:06:00:: 1 3
furniture%1:06:00:: 1 7
man%1:18:00:: 1 9
mouse%1:05:00:: 1 4
see%2:39:00:: 1 400
stool%1:04:00:: 1 99
table%1:06:00:: 2 3
table%1:10:00:: 1 5
zebra%1:05:00:: 1 1
";

pub(super) fn parse(index: &str, data: &str, exceptions: &str, counts: &str) -> Result<Lexicon, LexiconError> {
    let (index, data) = (format!("{HEADER}{index}"), format!("{HEADER}{data}"));
    Lexicon::parse(&Sources {
        index: index.as_bytes(),
        data: data.as_bytes(),
        exceptions: exceptions.as_bytes(),
        counts: counts.as_bytes(),
    })
}

pub(super) fn tiny() -> Lexicon {
    parse(INDEX, DATA, EXCEPTIONS, COUNTS).unwrap()
}
