CREATE TABLE trains (
    id   int PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE seats (
    id        int PRIMARY KEY,
    train     int NOT NULL REFERENCES trains,
    number    text NOT NULL,
    price     numeric(10,2) NOT NULL,
    passenger text,
    UNIQUE (train, number)
);

CREATE TABLE bookings (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    train     int NOT NULL REFERENCES trains,
    passenger text NOT NULL,
    seats     text[] NOT NULL,
    paid      numeric(10,2) NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);

INSERT INTO trains VALUES (1, 'the 08:15 to Lyon'), (2, 'the 09:40 to Turin');

-- Eight seats each: 1A to 4B.
INSERT INTO seats
SELECT train * 100 + n, train, (n + 1) / 2 || CASE WHEN n % 2 = 1 THEN 'A' ELSE 'B' END, 20 + 5 * train, NULL
FROM generate_series(1, 2) AS train, generate_series(1, 8) AS n;
