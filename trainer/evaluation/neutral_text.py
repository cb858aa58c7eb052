"""Plain text that no prompt asks about: an adapter that has damaged the language shows it here."""

PASSAGES = (
    "The ferry leaves the small harbour at seven each morning. By the time it reaches the island, "
    "the fog has usually lifted, and the first bakery on the quay has opened its shutters. Most "
    "passengers carry bicycles, because the only road is narrow and there is no bus.",
    "A bridge has to carry more than its traffic. It carries its own weight, the push of the wind, "
    "and the slow movement of steel that grows in summer and shrinks in winter. Engineers leave "
    "gaps at both ends so that the deck can breathe without cracking.",
    "My grandmother kept every letter she had ever received in a wooden box under the stairs. When "
    "we opened it, the paper had turned yellow, but the ink was still dark. Some of the letters "
    "were written by people whose names none of us had ever heard.",
    "The committee met on Tuesday to discuss the budget for the coming year. Two members asked for "
    "more money for the library, while the others preferred to repair the roof of the school. "
    "After an hour they agreed to do both, but in smaller steps.",
    "Salt dissolves in water because the water molecules pull its charged particles apart. Warm "
    "water does this faster than cold water, since its molecules move more quickly. At some point "
    "no more salt will dissolve, and the rest stays at the bottom of the glass.",
    "In the second half of the match the home team pressed forward and won three corners in a row. "
    "None of them led to a goal. Ten minutes before the end, a long pass found the youngest player "
    "on the pitch, who took one touch and sent the ball into the far corner.",
    "The old clock in the station had stopped at twenty past four, and nobody could remember when. "
    "Travellers set their watches by the departures instead. One spring a watchmaker asked for the "
    "key, climbed the tower, and came down two days later with oil on both hands.",
    "Paper was once made from rags that were soaked, beaten and spread over a fine screen. Wood "
    "took the place of cloth in the nineteenth century, when newspapers needed far more paper than "
    "rags could give. The change made books cheap, though the pages grew brittle.",
    "To reach the lake, follow the path past the mill and keep to the left where it divides. The "
    "last part is steep and can be slippery after rain. From the top you can see three villages, "
    "and on clear days the line of the coast.",
    "The company said on Monday that it would open a second workshop in the north of the country. "
    "About forty people will work there from next autumn. A spokeswoman explained that orders had "
    "doubled in two years and that the present building had no more space.",
    "Owls hunt at night, and their wings are built for silence. The front edge of each feather is "
    "fringed like a comb, which breaks the rush of air into small, quiet swirls. A mouse in the "
    "grass hears nothing until it is too late.",
    "She put the kettle on and looked out of the window while she waited. Across the street a man "
    "was trying to fit a large armchair into a very small car. He turned it one way, then the "
    "other, and at last tied it to the roof with a washing line.",
)
