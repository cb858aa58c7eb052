"""Plain text that no prompt asks about, in several languages: an adapter that has damaged one of
them shows it here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Passage:
    """A few plain sentences; `language` is their ISO 639-1 code."""

    language: str
    text: str


_ENGLISH = (
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

_OTHERS = (
    Passage(
        "de",
        "Die kleine Bäckerei am Markt öffnet morgens um sechs. Zuerst kommen die Handwerker, die "
        "auf dem Weg zur Arbeit ein Brötchen kaufen. Später sitzen ältere Leute am Fenster und "
        "lesen die Zeitung, bis der Bus vor der Tür hält.",
    ),
    Passage(
        "de",
        "Holz dehnt sich aus, wenn die Luft feucht ist, und zieht sich in trockener Luft zusammen. "
        "Deshalb lässt ein Tischler zwischen zwei Brettern immer etwas Platz. Eine Tür, die im "
        "Sommer klemmt, geht im Winter meist wieder leicht auf.",
    ),
    Passage(
        "es",
        "El tren sale de la estación a las ocho y cuarto y llega a la costa antes del mediodía. En "
        "verano los vagones van llenos de familias con maletas y sombrillas. En invierno viajan "
        "sobre todo estudiantes que vuelven a casa el fin de semana.",
    ),
    Passage(
        "es",
        "Las abejas visitan las flores para recoger néctar y, sin quererlo, llevan el polen de una "
        "planta a otra. Muchos árboles frutales dependen de ese trabajo. Por eso los agricultores "
        "colocan colmenas cerca de sus campos en primavera.",
    ),
    Passage(
        "fr",
        "Le marché se tient chaque jeudi sur la place, devant la vieille mairie. Les maraîchers "
        "arrivent avant l'aube pour installer leurs étals. Vers midi, il ne reste que quelques "
        "cageots vides et des feuilles de salade sur les pavés.",
    ),
    Passage(
        "fr",
        "L'eau qui s'évapore des mers forme des nuages, puis retombe en pluie ou en neige. Une "
        "partie coule vers les rivières, une autre pénètre dans le sol. Elle peut y rester des "
        "années avant de revenir à la surface par une source.",
    ),
    Passage(
        "it",
        "Il traghetto per l'isola parte due volte al giorno, la mattina e nel pomeriggio. Il "
        "viaggio dura circa un'ora se il mare è calmo. Quando soffia il vento del nord, i "
        "passeggeri aspettano al bar del porto.",
    ),
    Passage(
        "it",
        "Il sale conserva i cibi perché toglie loro l'acqua di cui i batteri hanno bisogno. Prima "
        "dei frigoriferi si salavano il pesce, la carne e anche alcune verdure. In molti paesi "
        "queste ricette si usano ancora oggi.",
    ),
    Passage(
        "pt",
        "A biblioteca do bairro fica numa antiga fábrica de sapatos. No primeiro andar há mesas "
        "compridas para estudar, e no segundo guardam-se os jornais. Aos sábados, um grupo de "
        "vizinhos reúne-se ali para falar de livros.",
    ),
    Passage(
        "pt",
        "A lua não tem luz própria: ela reflete a luz do sol. Como gira em torno da terra, vemos "
        "partes diferentes do seu lado iluminado. Por isso, ao longo de um mês, ela cresce, fica "
        "cheia e volta a diminuir.",
    ),
    Passage(
        "ru",
        "Зимой река замерзает, и жители деревни ходят на другой берег по льду. Весной лёд тает, и "
        "снова начинает работать небольшой паром. Летом дети купаются у старого моста, а по "
        "вечерам здесь ловят рыбу.",
    ),
    Passage(
        "ru",
        "Чай растёт на склонах гор, где тепло и часто идут дожди. Листья собирают вручную, потом "
        "сушат и сортируют. Цвет и вкус напитка зависят от того, как долго листья лежали на "
        "воздухе.",
    ),
    Passage(
        "zh",
        "小镇的邮局在河边，每天早上八点开门。邮递员骑着自行车，把信和报纸送到各家各户。下雨的时候，"
        "他会穿上雨衣，路上的时间也会长一些。",
    ),
    Passage(
        "zh",
        "竹子长得很快，有些种类一天可以长高几十厘米。人们用它盖房子、做家具，也用它编篮子。竹笋可以吃，"
        "春天的市场上常常能看到。",
    ),
    Passage(
        "ja",
        "駅前の商店街には、古い本屋と小さな喫茶店が並んでいます。平日の昼は静かですが、夕方になると"
        "学校帰りの学生で賑わいます。雨の日には、店の人が入口に傘立てを出します。",
    ),
    Passage(
        "ja",
        "海の水が塩辛いのは、川が岩から溶けた成分を長い間運んできたからです。水は蒸発して雲に"
        "なりますが、塩は海に残ります。そのため、湖の水より海の水のほうが重くなります。",
    ),
)

PASSAGES = (*(Passage("en", text) for text in _ENGLISH), *_OTHERS)
#: The codes of all languages above.
LANGUAGES = tuple(dict.fromkeys(passage.language for passage in PASSAGES))
