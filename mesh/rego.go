package mesh

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Rego is a policy in Rego.
type Rego struct {
	Name    string
	Modules []RegoModule
	// V0 says that modules are of Rego v0 unless they say otherwise.
	V0 bool
}

// RegoModule is one file of a policy.
type RegoModule struct {
	// File is its name, which faults call it by.
	File, Text string
}

// RegoRule says that a policy must allow, too.
type RegoRule struct {
	// Module names a Rego document.
	Module string
	// Query names the rule in it, such as data.shop.allow.
	Query string
}

// RegoUse is a policy with what goes with it where it is used.
type RegoUse struct {
	Modules []RegoModule
	V0      bool
	// Data are data sets, each a JSON object, by name.
	Data map[string][]byte
	// Queries name rules.
	Queries []string
}

// loadModules reads the modules of a Rego document from the files beside it, and
// makes them part of the document: it is then the same wherever it goes.
func (d *Document) loadModules(form *regoForm, files map[string][]byte) {
	if len(form.Texts) > 0 || len(form.Modules) == 0 {
		if len(form.Texts) != len(form.Modules) {
			d.fault("texts", fmt.Sprintf("has %d modules, and modules names %d: write one text for each", len(form.Texts), len(form.Modules)))
		}
		return
	}
	texts := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i, module := range form.Modules {
		text, ok := files[string(module)]
		if !ok {
			d.fault(fmt.Sprintf("modules[%d]", i), fmt.Sprintf("there is no file %s beside the documents%s", module, didYouMeanFile(string(module), files)))
		}
		form.Texts = append(form.Texts, "")
		if err := form.Texts[i].UnmarshalText(text); err != nil {
			d.fault(fmt.Sprintf("modules[%d]", i), err.Error())
		}
		texts.Content = append(texts.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle, Value: string(text)})
	}
	root := d.nodes[""]
	root.Content = append(slices.Clip(root.Content), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "texts"}, texts)
}

func didYouMeanFile(name string, files map[string][]byte) string {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	return didYouMean(name, names)
}

// isModule reports whether a file beside the documents is a module.
func isModule(name string) bool { return strings.HasSuffix(name, ".rego") }

func (s scope) rego() *Rego {
	r := regoOf(s.document)
	if s.options.CheckRego != nil && len(s.document.faults) == 0 {
		faults, _ := s.options.CheckRego(RegoUse{Modules: r.located(s.document), V0: r.V0})
		s.faults = append(s.faults, faults...)
	}
	r.Name = s.name()
	return r
}

func regoOf(d *Document) *Rego {
	form := d.form.(*regoForm)
	r := &Rego{Name: d.ID.Name, V0: form.V0}
	for i, name := range form.Modules {
		if i < len(form.Texts) {
			r.Modules = append(r.Modules, RegoModule{string(name), string(form.Texts[i])})
		}
	}
	return r
}

// located returns the modules by the names of their files, beside a document.
func (r *Rego) located(d *Document) []RegoModule {
	modules := slices.Clone(r.Modules)
	for i := range modules {
		modules[i].File = filepath.Join(filepath.Dir(d.Position.File), modules[i].File)
	}
	return modules
}

// regoRule returns the rule of a route.
func (s scope) regoRule(route string, form *regoRuleForm) *RegoRule {
	if form == nil {
		return nil
	}
	s.reference(join(route, "rego.module"), form.Module, KindRego)
	return &RegoRule{Module: form.Module, Query: form.Query}
}

// regoRules checks the rules of all routes, each policy once. data are the data
// sets that they may read.
func (s scope) regoRules(rules []*RegoRule, data []string) {
	byModule := map[string][]int{}
	for i, rule := range rules {
		if rule != nil {
			byModule[rule.Module] = append(byModule[rule.Module], i)
		}
	}
	for module, routes := range byModule {
		document := s.documents.Get(DocumentID{KindRego, module})
		if document != nil && len(document.faults) == 0 && s.options.CheckRego != nil {
			s.regoUse(document, rules, routes, data)
		}
	}
}

func (s scope) regoUse(document *Document, rules []*RegoRule, routes []int, data []string) {
	r := regoOf(document)
	use := RegoUse{Modules: r.located(document), V0: r.V0, Data: map[string][]byte{}}
	if faults, _ := s.options.CheckRego(use); len(faults) > 0 {
		return // they are the Rego document's
	}
	for _, name := range data {
		if d := s.documents.Get(DocumentID{KindData, name}); d != nil {
			use.Data[name] = d.form.(*dataForm).json()
		}
	}
	for _, i := range routes {
		use.Queries = append(use.Queries, rules[i].Query)
	}
	faults, queries := s.options.CheckRego(use)
	for n, i := range routes {
		path := fmt.Sprintf("routes[%d].rego", i)
		switch {
		case len(faults) > 0:
			s.fault(path+".module", "does not go with the data sets here: %s", faults[0].Message)
		case queries[n] != nil:
			s.fault(path+".query", "%v", queries[n])
		}
	}
}
