package mesh

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxFileSize bounds what is read of one file.
const maxFileSize = 1 << 20

// Documents is a set of documents, faulty ones included. It is immutable; the
// zero value is the empty set.
type Documents struct {
	byID map[DocumentID]*Document
	// source is the directory or file that they were read from.
	source string
	// kinds are those that there may be.
	kinds []Kind
	// faults are those of no document in byID.
	faults Faults
	// incomplete says that something could not be read at all, so that a
	// missing document proves nothing.
	incomplete bool
}

// ReadDir reads the documents in all *.yaml and *.yml files of a directory, with
// the *.rego files that they name, but not of those below it; hidden files are
// left out, and those of tests, which [ReadTests] reads. The error is about
// reading alone: what is wrong with the documents is told by [Documents.Compile].
func ReadDir(dir string) (Documents, error) {
	files, err := readFiles(dir, isMeshFile)
	if err != nil {
		return Documents{}, err
	}
	return parseFiles(dir, files, kinds...), nil
}

func isMeshFile(name string) bool { return !isTestFile(name) }

// Parse reads the documents in data; file is what faults call it.
func Parse(file string, data []byte) Documents {
	return parseFiles(file, []sourceFile{{file, data}}, kinds...)
}

type sourceFile struct {
	name string
	data []byte
}

// readFiles returns the files of a directory that are wanted, sorted by name.
func readFiles(dir string, wanted func(name string) bool) ([]sourceFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	var files []sourceFile
	for _, entry := range entries {
		extension := filepath.Ext(entry.Name())
		if entry.Name()[0] == '.' || extension != ".yaml" && extension != ".yml" && !isModule(entry.Name()) || !wanted(entry.Name()) {
			continue
		}
		name := filepath.Join(dir, entry.Name())
		data, err := readRegular(name)
		if err != nil {
			return nil, fmt.Errorf("read documents: %w", err)
		}
		if data != nil {
			files = append(files, sourceFile{name, data})
		}
	}
	return files, nil
}

// readRegular returns the content of a regular file, or of what a symlink says
// is one, and nil for anything else. Kubernetes mounts files as symlinks.
func readRegular(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s is larger than %d bytes: split it", name, maxFileSize)
	}
	return data, err
}

func parseFiles(source string, files []sourceFile, kinds ...Kind) Documents {
	d := Documents{byID: map[DocumentID]*Document{}, source: source, kinds: kinds}
	modules := map[string][]byte{}
	for _, file := range files {
		if isModule(file.name) {
			modules[filepath.Base(file.name)] = file.data
		}
	}
	for _, file := range files {
		if !isModule(file.name) {
			d.parse(file.name, file.data, modules)
		}
	}
	return d
}

func (d *Documents) parse(file string, data []byte, modules map[string][]byte) {
	if fault, ok := disguise(data); ok {
		fault.File = file
		d.faultIncomplete(fault)
		return
	}
	lines := strings.Split(string(data), "\n")
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	for err == nil {
		var root yaml.Node
		if err = loader.Load(&root); err == nil && len(root.Content) == 1 {
			d.add(file, lines, root.Content[0], modules)
		}
	}
	if !errors.Is(err, io.EOF) {
		d.faultIncomplete(syntaxFault(file, data, err))
	}
}

// disguises are the characters by which a text is shown otherwise than YAML
// reads it: those that end a line for YAML 1.1 and in few editors, so that a
// rule can stand in what looks like a comment; those that turn the direction of
// what follows (CVE-2021-42574); and what stands for bytes that are not UTF-8,
// since YAML reads UTF-16 as well, where none of these would be found.
var disguises = regexp.MustCompile(`[\x{85}\x{2028}\x{2029}\x{202a}-\x{202e}\x{2066}-\x{2069}\x{fffd}]|\r(?:[^\n]|$)`)

// disguise says where the first such character is.
func disguise(data []byte) (Fault, bool) {
	at := disguises.FindIndex(data)
	if at == nil {
		return Fault{}, false
	}
	r, size := utf8.DecodeRune(data[at[0]:])
	before := data[:at[0]]
	message := fmt.Sprintf("has %U, by which the text is shown otherwise than it is read: remove it, or write %s in double quotes", r, strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	if r == utf8.RuneError && size == 1 {
		message = "is not UTF-8: save it in that encoding"
	}
	return Fault{
		Position: Position{
			Line:   1 + bytes.Count(before, []byte("\n")),
			Column: 1 + utf8.RuneCount(before[1+bytes.LastIndexByte(before, '\n'):]),
		},
		Message: message,
	}, true
}

// syntaxFault says why a file is not YAML.
func syntaxFault(file string, data []byte, err error) Fault {
	fault := Fault{Position: Position{File: file}, Message: "is not YAML: " + err.Error()}
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		fault.Line, fault.Column = e.Mark.Line, e.Mark.Column
		fault.Message = "is not YAML: " + strings.TrimPrefix(e.ContextMsg+": "+e.Message, ": ")
		if before := data[:min(e.Mark.Index, len(data))]; fault.Line == 0 {
			fault.Line = 1 + bytes.Count(before, []byte("\n"))
			fault.Column = len(before) - bytes.LastIndexByte(before, '\n')
		}
	}
	return fault
}

// add takes in one document; an empty one is skipped.
func (d *Documents) add(file string, lines []string, node *yaml.Node, modules map[string][]byte) {
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		return
	}
	kind, fault := d.kindOf(node)
	if fault != nil {
		fault.File = file
		d.faultIncomplete(*fault)
		return
	}
	document := newDocument(file, lines, kind, node, modules)
	if document.ID.Name == "" {
		d.faultIncomplete(document.faults...)
		return
	}
	if first, ok := d.byID[document.ID]; ok {
		d.faults = append(d.faults, Fault{
			document.position("name"), "name",
			fmt.Sprintf("there is a %s already: rename this one, or remove one", first.describe()),
		})
		return
	}
	d.byID[document.ID] = document
}

// kindOf looks ahead for the kind of a document, or says what is wrong with it.
func (d *Documents) kindOf(node *yaml.Node) (Kind, *Fault) {
	words := make([]string, len(d.kinds))
	for i, kind := range d.kinds {
		words[i] = string(kind)
	}
	if node.Kind == yaml.MappingNode {
		for pair := range slices.Chunk(node.Content, 2) {
			kind := pair[1].Value
			switch {
			case pair[0].Value != "kind":
				continue
			case slices.Contains(d.kinds, Kind(kind)):
				return Kind(kind), nil
			}
			message := fmt.Sprintf("%q is not %s%s", kind, oneOf(words), didYouMean(kind, words))
			if Kind(kind) == KindTest {
				message = "is Test, which is no part of the mesh: move it into a file whose name ends in .test.yaml"
			}
			return "", &Fault{Position{"", pair[1].Line, pair[1].Column}, "kind", message}
		}
	}
	message := "is no document: write a mapping with the key kind, which is " + oneOf(words)
	return "", &Fault{Position{"", node.Line, node.Column}, "", message}
}

func (d *Documents) faultIncomplete(faults ...Fault) {
	d.faults = append(d.faults, faults...)
	d.incomplete = true
}

// Get returns the document of that ID, or nil.
func (d Documents) Get(id DocumentID) *Document { return d.byID[id] }

// All returns the documents, sorted by kind and name.
func (d Documents) All() []*Document {
	return slices.SortedFunc(maps.Values(d.byID), func(a, b *Document) int {
		return cmp.Or(cmp.Compare(a.ID.Kind, b.ID.Kind), cmp.Compare(a.ID.Name, b.ID.Name))
	})
}

// With returns the set with document added, or put in place of the one of the
// same ID. Faults of the one that it replaces are gone.
func (d Documents) With(document *Document) Documents {
	d.byID = maps.Clone(d.byID)
	if d.byID == nil {
		d.byID = map[DocumentID]*Document{}
	}
	d.byID[document.ID] = document
	return d
}

// Without returns the set without the document of that ID.
func (d Documents) Without(id DocumentID) Documents {
	d.byID = maps.Clone(d.byID)
	delete(d.byID, id)
	return d
}

// Hash is of what all the documents say, see [Document.Hash].
func (d Documents) Hash() string {
	h := sha256.New()
	for _, document := range d.All() {
		fmt.Fprintf(h, "%s %s\n", document.ID, document.Hash)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func formValue(form any) reflect.Value { return reflect.ValueOf(form).Elem() }

func formName(form any) string { return formValue(form).FieldByName("Name").String() }
