package pgvalue

const (
	oidInt2       = 21
	oidInt2vector = 22
	oidOID        = 26
	oidOidvector  = 30
	oidBox        = 603
)

// builtin is a row of pg_type together with the OID of its array type, which is
// zero if there is none. The server never changes these OIDs.
type builtin struct {
	oid, array uint32
	kind       kind
	name       string
}

// builtins lists the base, range and multirange types of pg_catalog.
var builtins = [...]builtin{
	{16, 1000, kindBool, "boolean"},
	{17, 1001, kindBytea, "bytea"},
	{18, 1002, kindOpaque, `"char"`},
	{19, 1003, kindText, "name"},
	{20, 1016, kindInt, "bigint"},
	{21, 1005, kindInt, "smallint"},
	{22, 1006, kindVector, "int2vector"},
	{23, 1007, kindInt, "integer"},
	{24, 1008, kindOpaque, "regproc"},
	{25, 1009, kindText, "text"},
	{26, 1028, kindOID, "oid"},
	{27, 1010, kindOpaque, "tid"},
	{28, 1011, kindOID, "xid"},
	{29, 1012, kindOID, "cid"},
	{30, 1013, kindVector, "oidvector"},
	{114, 199, kindJSON, "json"},
	{142, 143, kindOpaque, "xml"},
	{194, 0, kindOpaque, "pg_node_tree"},
	{600, 1017, kindOpaque, "point"},
	{601, 1018, kindOpaque, "lseg"},
	{602, 1019, kindOpaque, "path"},
	{603, 1020, kindOpaque, "box"},
	{604, 1027, kindOpaque, "polygon"},
	{628, 629, kindOpaque, "line"},
	{650, 651, kindOpaque, "cidr"},
	{700, 1021, kindFloat, "real"},
	{701, 1022, kindFloat, "double precision"},
	{718, 719, kindOpaque, "circle"},
	{774, 775, kindOpaque, "macaddr8"},
	{790, 791, kindOpaque, "money"},
	{829, 1040, kindOpaque, "macaddr"},
	{869, 1041, kindOpaque, "inet"},
	{1033, 1034, kindOpaque, "aclitem"},
	{1042, 1014, kindText, "character"},
	{1043, 1015, kindText, "character varying"},
	{1082, 1182, kindDate, "date"},
	{1083, 1183, kindOpaque, "time without time zone"},
	{1114, 1115, kindTimestamp, "timestamp without time zone"},
	{1184, 1185, kindTimestamptz, "timestamp with time zone"},
	{1186, 1187, kindInterval, "interval"},
	{1266, 1270, kindOpaque, "time with time zone"},
	{1560, 1561, kindOpaque, "bit"},
	{1562, 1563, kindOpaque, "bit varying"},
	{1700, 1231, kindNumeric, "numeric"},
	{1790, 2201, kindOpaque, "refcursor"},
	{2202, 2207, kindOpaque, "regprocedure"},
	{2203, 2208, kindOpaque, "regoper"},
	{2204, 2209, kindOpaque, "regoperator"},
	{2205, 2210, kindOpaque, "regclass"},
	{2206, 2211, kindOpaque, "regtype"},
	{2950, 2951, kindUUID, "uuid"},
	{2970, 2949, kindOpaque, "txid_snapshot"},
	{3220, 3221, kindOpaque, "pg_lsn"},
	{3361, 0, kindOpaque, "pg_ndistinct"},
	{3402, 0, kindOpaque, "pg_dependencies"},
	{3614, 3643, kindOpaque, "tsvector"},
	{3615, 3645, kindOpaque, "tsquery"},
	{3642, 3644, kindOpaque, "gtsvector"},
	{3734, 3735, kindOpaque, "regconfig"},
	{3769, 3770, kindOpaque, "regdictionary"},
	{3802, 3807, kindJSON, "jsonb"},
	{3904, 3905, kindOpaque, "int4range"},
	{3906, 3907, kindOpaque, "numrange"},
	{3908, 3909, kindOpaque, "tsrange"},
	{3910, 3911, kindOpaque, "tstzrange"},
	{3912, 3913, kindOpaque, "daterange"},
	{3926, 3927, kindOpaque, "int8range"},
	{4072, 4073, kindOpaque, "jsonpath"},
	{4089, 4090, kindOpaque, "regnamespace"},
	{4096, 4097, kindOpaque, "regrole"},
	{4191, 4192, kindOpaque, "regcollation"},
	{4451, 6150, kindOpaque, "int4multirange"},
	{4532, 6151, kindOpaque, "nummultirange"},
	{4533, 6152, kindOpaque, "tsmultirange"},
	{4534, 6153, kindOpaque, "tstzmultirange"},
	{4535, 6155, kindOpaque, "datemultirange"},
	{4536, 6157, kindOpaque, "int8multirange"},
	{4600, 0, kindOpaque, "pg_brin_bloom_summary"},
	{4601, 0, kindOpaque, "pg_brin_minmax_multi_summary"},
	{5017, 0, kindOpaque, "pg_mcv_list"},
	{5038, 5039, kindOpaque, "pg_snapshot"},
	{5069, 271, kindText, "xid8"},
}
